"""Sums of pixel counts over rows, and the IoU scores that follow from them."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy
import pandas
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]

SCORES = ("miou", "fb_iou", "episode_miou")
"""Names of the scores, in order."""


def score_names(rows: pandas.DataFrame) -> tuple[str, ...]:
    """Return the names of the scores of a table; of several ways also ``background_iou``."""
    return (*SCORES, "background_iou") if "way" in rows.columns else SCORES


@attrs.frozen(kw_only=True)
class Sums:
    """Sums over rows; the first axes of each array are replicates or query images.

    Attributes:
        inter, union: (…, C) foreground pixels by class, classes by ascending id.
        asked: (…, C) number of episodes by class.
        back: (…, 2) background pixels, intersection and union.
        ious: (…, 2) sum of the IoU of each episode, and number of episodes.
    """

    inter: Floats
    union: Floats
    asked: Floats
    back: Floats
    ious: Floats

    @classmethod
    def by_query(cls, table: pandas.DataFrame) -> Sums:
        """Return the sums of each query image's rows; query images by ascending id."""
        ious = (table["intersection_fg"] / table["union_fg"]).fillna(1.0)
        rows = table.assign(asked=1, iou=ious)
        by_class = rows.groupby(["query", "class_id"])[["intersection_fg", "union_fg", "asked"]]
        wide = by_class.sum().unstack(fill_value=0).astype(numpy.float64)
        rest = rows.groupby("query")[["intersection_bg", "union_bg", "iou", "asked"]].sum()
        return cls(
            inter=wide["intersection_fg"].to_numpy(),
            union=wide["union_fg"].to_numpy(),
            asked=wide["asked"].to_numpy(),
            back=rest[["intersection_bg", "union_bg"]].to_numpy(dtype=numpy.float64),
            ious=rest[["iou", "asked"]].to_numpy(),
        )

    def total(self) -> Sums:
        """Return the sums over all query images."""
        return self._each(lambda part: part.sum(0))

    def without_each(self) -> Sums:
        """Return the sums with each query image left out."""
        return self._each(lambda part: part.sum(0) - part)

    def weighted(self, weights: Floats) -> Sums:
        """Return the sums weighted by the multiplicity of each query image; weights are (R, Q)."""
        return self._each(lambda part: weights @ part)

    def _each(self, change: Callable[[Floats], Floats]) -> Sums:
        return Sums(**{f.name: change(getattr(self, f.name)) for f in attrs.fields(Sums)})

    def class_ious(self) -> Floats:
        """Return the class IoU, (…, C) in percent; NaN for a class without episodes."""
        ious = 100.0 * _ratio(self.inter, self.union)
        return numpy.where(self.asked > 0, ious, numpy.nan)

    def scores(self) -> dict[str, Floats]:
        """Return the scores of `fssbench.metrics.iou.IoU`, in percent."""
        # A class without episodes in a replicate is left out of the mean.
        classes = _ratio(self.inter, self.union).sum(-1) / (self.asked > 0).sum(-1).clip(1)
        foreground = _ratio(self.inter.sum(-1), self.union.sum(-1))
        background = _ratio(self.back[..., 0], self.back[..., 1])
        episodes = _ratio(self.ious[..., 0], self.ious[..., 1])
        return {
            "miou": 100.0 * classes,
            "fb_iou": 50.0 * (foreground + background),
            "episode_miou": 100.0 * episodes,
            "background_iou": 100.0 * background,
        }


def _ratio(part: Floats, whole: Floats) -> Floats:
    zero = numpy.zeros(numpy.broadcast(part, whole).shape)
    return numpy.divide(part, whole, out=zero, where=numpy.asarray(whole) > 0)
