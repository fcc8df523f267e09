"""Grids: many evaluations, locally or on Ray."""
