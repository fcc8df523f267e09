"""Layers and operations that several matchers share."""

from fssbench.nn.conv4d import CenterPivotConv4d
from fssbench.nn.correlation import correlation, cosine_map
from fssbench.nn.nested import map_tensors, separate, tensors, together
from fssbench.nn.pooling import masked_average, masks_at
from fssbench.nn.resize import resize
from fssbench.nn.selective_scan import scan_in_use, selective_scan
from fssbench.nn.voting import relative_votes

__all__ = [
    "CenterPivotConv4d",
    "correlation",
    "cosine_map",
    "map_tensors",
    "masked_average",
    "masks_at",
    "relative_votes",
    "resize",
    "scan_in_use",
    "selective_scan",
    "separate",
    "tensors",
    "together",
]
