"""Boards as one self-contained static HTML page."""
