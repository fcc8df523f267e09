"""Evaluation: from names to records."""
