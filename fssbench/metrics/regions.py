"""Region-wise over- and under-segmentation: ROM and RUM (Zhang, Mehta, Caspi, 2021)."""

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

_MORPHOLOGY: Any = scipy.ndimage  # its type stubs lack its functions


class Regions:
    """Over-segmentation (ROM) and under-segmentation (RUM), without a threshold; 0 is best.

    Regions are the connected parts (over sides and corners) of the foreground: G of the target, P
    of the prediction; two of them are related when they share a pixel. A target region is
    over-segmented when it is related to more than one predicted region. With G_O the over-segmented
    target regions and P_O the predicted regions related to one of them,

        ROM = tanh( |G_O| |P_O| / (|G| |P|) · sum over G_O of (related predicted regions - 1) ),

    and RUM is the same with the parts of target and prediction exchanged. Both are in [0, 1); both
    are 0 where there is no target region or no predicted one. An episode's values are averaged over
    all episodes.
    """

    columns = ("rom", "rum")

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute ROM and RUM of each episode.

        Args:
            prediction: bool (B, H, W), True is foreground.
            target: uint8 (B, H, W) of 0, 1 and 255; pixels of 255 belong to no region.

        Returns:
            float64 (B,) for each of `columns`.
        """
        return measure_each(_segmentation, self.columns, prediction, target)

    def summarise(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> dict[str, float]:
        """Return ``rom`` and ``rum``, means over the episodes in [0, 1); see `Metric.summarise`."""
        check_classes(rows["class_id"], classes)
        return {name: float(rows[name].mean()) for name in self.columns}


def _segmentation(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    related = relations(target == 1, prediction & (target != IGNORE))
    return over_segmentation(related), over_segmentation(related.T)


def relations(target: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Find overlapping regions.

    Args:
        target: bool (H, W).
        prediction: bool (H, W).

    Returns:
        bool (regions of the target, regions of the prediction).
    """
    true_regions, found_regions = (
        _MORPHOLOGY.label(plane, structure=np.ones((3, 3)))[0] for plane in (target, prediction)
    )
    related = np.zeros((true_regions.max() + 1, found_regions.max() + 1), dtype=bool)
    related[true_regions, found_regions] = True
    return related[1:, 1:]  # number 0 is the background


def over_segmentation(related: np.ndarray) -> float:
    """Return ROM for a bool matrix (regions, regions that may divide them)."""
    if not related.size:
        return 0.0
    parts = related.sum(1)
    divided = parts > 1
    ratio = divided.sum() * related[divided].any(0).sum() / related.size
    return math.tanh(ratio * (parts[divided] - 1).sum())
