"""Region similarity J and boundary accuracy F of DAVIS (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import scipy.ndimage
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.metrics.metric import check_classes

TOLERANCE = 0.008
"""Tolerance of boundary pixels in image diagonals, rounded up to whole pixels."""

Plane = np.ndarray[Any, np.dtype[np.bool_]]


class Boundary:
    """J&F of the DAVIS challenges (Pont-Tuset et al., 2017): accuracy of regions and boundaries.

    * ``j``: intersection over union of the foreground; 1 where both masks are empty.
    * ``f``: the F-measure of boundary pixels. Precision is the share of predicted boundary pixels
      within `TOLERANCE` of a true one, recall the share of true ones within it of a predicted one.
      An empty mask against one that is not scores 0, two empty masks score 1.
    * ``j_and_f``: the mean of both.

    Each is averaged over a class's episodes and then over classes, as DAVIS averages over an
    object's frames and then over objects. As in DAVIS's code, ignored pixels are background in both
    masks. Rows below and columns to the right that are ignored altogether (the padding of a batch)
    do not belong to the image, so they do not change its diagonal.
    """

    columns = ("region_j", "boundary_f")

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute J and F of each episode.

        Args:
            prediction: bool (B, H, W), True is foreground.
            target: uint8 (B, H, W) of 0, 1 and 255.

        Returns:
            float64 (B,) in [0, 1] for each of `columns`.
        """
        values = np.zeros((len(target), 2))
        planes = zip(target.cpu().numpy(), prediction.cpu().numpy(), strict=True)
        for row, (truth, marked) in zip(values, planes, strict=True):
            height, width = _content(truth != IGNORE)
            truth, marked = truth[:height, :width], marked[:height, :width]
            found, true = marked & (truth != IGNORE), truth == 1
            row[:] = region_similarity(found, true), boundary_accuracy(found, true)
        both = torch.from_numpy(values).to(prediction.device)
        return {"region_j": both[:, 0], "boundary_f": both[:, 1]}

    def summarise(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> dict[str, float]:
        """Return ``j``, ``f`` and ``j_and_f`` in percent; see `Metric.summarise`."""
        check_classes(rows["class_id"], classes)
        means = 100.0 * rows.groupby("class_id")[list(self.columns)].mean().mean()
        j, f = float(means["region_j"]), float(means["boundary_f"])
        return {"j": j, "f": f, "j_and_f": (j + f) / 2}


def region_similarity(prediction: Plane, target: Plane) -> float:
    """Return the Jaccard index of two bool (H, W) masks; 1 if both are empty."""
    union = np.count_nonzero(prediction | target)
    return float(np.count_nonzero(prediction & target) / union) if union else 1.0


def boundary_accuracy(prediction: Plane, target: Plane) -> float:
    """Return the F-measure of the boundaries of two bool (H, W) masks.

    DAVIS's code dilates each boundary with a disk of the tolerance; a pixel lies in the dilated one
    if and only if its distance to the boundary is at most the disk's radius.
    """
    found, true = outline(prediction), outline(target)
    if not found.any() or not true.any():
        return float(found.any() == true.any())
    radius = math.ceil(TOLERANCE * math.hypot(*target.shape))
    precision = np.count_nonzero(found & _near(true, radius)) / np.count_nonzero(found)
    recall = np.count_nonzero(true & _near(found, radius)) / np.count_nonzero(true)
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def outline(mask: Plane) -> Plane:
    """Return the pixels that differ from the pixel to the right, below, or right below.

    In the last row and column only the neighbour inside the image counts.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    edge: Plane = (mask != right) | (mask != below) | (mask != both)
    return edge


def _near(boundary: Plane, radius: int) -> Plane:
    morphology: Any = scipy.ndimage  # its type stubs lack its functions
    distance = morphology.distance_transform_edt(~boundary)
    # Squared distances are whole numbers; adding a half makes the comparison safe from rounding.
    within: Plane = np.square(distance) < radius**2 + 0.5
    return within


def _content(valid: Plane) -> tuple[int, int]:
    """Return height and width of the image inside a padded plane; at least 1."""
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    return (int(rows[-1]) + 1, int(columns[-1]) + 1) if len(rows) else (1, 1)
