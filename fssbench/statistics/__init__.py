"""Confidence intervals and comparisons, computed from rows alone."""
