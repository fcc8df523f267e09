"""Conversion of official archives to the folder layouts of the datasets."""
