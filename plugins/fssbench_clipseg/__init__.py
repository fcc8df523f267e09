"""CLIPSeg through the transformers library (CVPR 2022)."""
