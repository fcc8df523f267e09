"""Comparison and statistics of manifests."""
