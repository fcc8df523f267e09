"""List files and samplers of the literature."""
