"""GF-SAM: graph-based prompts for SAM (NeurIPS 2024)."""
