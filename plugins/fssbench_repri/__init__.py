"""RePRI: region proportion regularized inference (CVPR 2021)."""
