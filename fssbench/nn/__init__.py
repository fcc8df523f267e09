"""Layers and operations that several matchers share."""

from fssbench.nn.conv4d import CenterPivotConv4d as CenterPivotConv4d
from fssbench.nn.correlation import correlation as correlation
from fssbench.nn.correlation import cosine_map as cosine_map
from fssbench.nn.flops import count_operations as count_operations
from fssbench.nn.mask_bce import mask_bce as mask_bce
from fssbench.nn.nested import map_tensors as map_tensors
from fssbench.nn.nested import separate as separate
from fssbench.nn.nested import tensors as tensors
from fssbench.nn.nested import together as together
from fssbench.nn.pooling import masked_average as masked_average
from fssbench.nn.pooling import masks_at as masks_at
from fssbench.nn.psp import PspHead as PspHead
from fssbench.nn.psp import PyramidPooling as PyramidPooling
from fssbench.nn.psp import cross_entropy as cross_entropy
from fssbench.nn.resize import resize as resize
from fssbench.nn.selective_scan import scan_in_use as scan_in_use
from fssbench.nn.selective_scan import selective_scan as selective_scan
from fssbench.nn.voting import relative_votes as relative_votes
