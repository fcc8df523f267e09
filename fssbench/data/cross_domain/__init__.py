"""Datasets of cross-domain few-shot segmentation: satellite, skin, chest and underwater images."""
