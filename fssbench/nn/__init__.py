"""Layers and operations that several matchers share."""

from fssbench.nn.pooling import masked_average, masks_at

__all__ = ["masked_average", "masks_at"]
