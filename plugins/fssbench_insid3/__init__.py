"""INSID3: in-context segmentation with DINOv3 alone (2025)."""
