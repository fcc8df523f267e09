"""Readers of the literature's episode lists."""
