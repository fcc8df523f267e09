"""SegGPT through the transformers library (ICCV 2023)."""
