"""Region similarity J and boundary accuracy F of DAVIS (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import scipy.ndimage
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.metrics.metric import check_classes, measure_each

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
        return measure_each(_accuracies, self.columns, prediction, target)

    def summarise(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> dict[str, float]:
        """Return ``j``, ``f`` and ``j_and_f`` in percent; see `Metric.summarise`."""
        check_classes(rows["class_id"], classes)
        means = 100.0 * rows.groupby("class_id")[list(self.columns)].mean().mean()
        j, f = float(means["region_j"]), float(means["boundary_f"])
        return {"j": j, "f": f, "j_and_f": (j + f) / 2}


def _accuracies(prediction: Plane, target: Plane) -> tuple[float, float]:
    valid = target != IGNORE
    rows, columns = np.flatnonzero(valid.any(1)), np.flatnonzero(valid.any(0))
    if len(rows):  # without the padding of a batch
        inside = slice(rows[-1] + 1), slice(columns[-1] + 1)
        prediction, target, valid = prediction[inside], target[inside], valid[inside]
    found, true = prediction & valid, target == 1
    return region_similarity(found, true), boundary_accuracy(found, true)


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
    precision, recall = _share_near(found, true, radius), _share_near(true, found, radius)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def outline(mask: Plane) -> Plane:
    """Return the pixels that differ from the pixel to the right, below, or right below.

    In the last row and column only the neighbour inside the image counts.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    edge: Plane = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
    return edge


def _share_near(pixels: Plane, boundary: Plane, radius: int) -> float:
    """Return the share of pixels within the radius of a boundary."""
    morphology: Any = scipy.ndimage  # its type stubs lack its functions
    distance = morphology.distance_transform_edt(~boundary)[pixels]
    # Squared distances are whole numbers; adding a half makes the comparison safe from rounding.
    return float(np.mean(np.square(distance) < radius**2 + 0.5))
