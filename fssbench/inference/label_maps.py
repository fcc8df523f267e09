"""Label maps of episodes of several ways: 0 is background, n is way n, 255 is ignored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE


def merged(masks: Sequence[Tensor], class_ids: Sequence[int]) -> Tensor:
    """Merge the masks of N classes of an image into one label map.

    Instances of different classes may overlap. A pixel of several classes belongs to the class with
    the fewest pixels in the image, which is mostly the object in front; between equal numbers, to
    the class with the highest id. A pixel that any mask ignores is ignored.

    Args:
        masks: uint8 (H, W) of 0, 1 and 255, one for each way.
        class_ids: class id of each mask.

    Returns:
        uint8 (H, W) of 0 to N and 255.
    """
    labels = torch.zeros_like(masks[0])
    areas = [int((mask == 1).sum()) for mask in masks]
    for n in sorted(range(len(masks)), key=lambda n: (-areas[n], class_ids[n])):
        labels[masks[n] == 1] = n + 1
    for mask in masks:
        labels[mask == IGNORE] = IGNORE
    return labels


def decided(logits: Tensor) -> Tensor:
    """Return the prediction of logits (H, W) of one way, or (N, H, W) of N ways.

    One way: bool (H, W), True above 0. N ways: uint8 (H, W), the arg-max over background, whose
    logit is 0, and the ways. A pixel without a single largest logit is background.
    """
    if logits.ndim == 2:
        return logits > 0
    best, way = logits.max(0)
    single = (logits == best).sum(0) == 1
    return torch.where((best > 0) & single, way + 1, 0).to(torch.uint8)


def one_way(labels: Tensor, way: int) -> Tensor:
    """Return the mask of one way of a label map: uint8 of 0, 1 and 255, same shape."""
    return torch.where(labels == IGNORE, IGNORE, (labels == way).to(torch.uint8))
