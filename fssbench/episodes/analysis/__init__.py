"""Comparison, statistics and plots of manifests."""
