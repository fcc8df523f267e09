"""Sums of pixel counts over rows, and the IoU scores that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import numpy
import pandas
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]

SCORES = ("miou", "fb_iou", "episode_miou")
"""Names of the scores, in order."""


def score_names(rows: pandas.DataFrame) -> tuple[str, ...]:
    """Return the names of the scores of a table, see `fssbench.metrics.iou.IoU`."""
    several = ("background_iou",) if "way" in rows.columns else ()
    known = ("base_miou", "novel_miou", "harmonic_mean") if "novel" in rows.columns else ()
    return (*SCORES, *several, *known)


@attrs.frozen(kw_only=True)
class Sums:
    """Sums over rows; the first axes of each array are replicates or query images.

    Attributes:
        inter, union: (…, C) foreground pixels by class, classes by ascending id.
        asked: (…, C) number of episodes by class.
        back: (…, 2) background pixels, intersection and union.
        ious: (…, 2) sum of the IoU of each episode, and number of episodes.
        novel: bool (C,), False for base classes, which only some tables have.
    """

    inter: Floats
    union: Floats
    asked: Floats
    back: Floats
    ious: Floats
    novel: NDArray[numpy.bool_]

    @classmethod
    def by_query(cls, table: pandas.DataFrame) -> Sums:
        """Return the sums of each query image's rows; query images by ascending id."""
        ious = (table["intersection_fg"] / table["union_fg"]).fillna(1.0)
        novel = table["novel"] if "novel" in table.columns else 1
        rows = table.assign(asked=1, iou=ious, novel=novel)
        by_class = rows.groupby(["query", "class_id"])[["intersection_fg", "union_fg", "asked"]]
        wide = by_class.sum().unstack(fill_value=0).astype(numpy.float64)
        rest = rows.groupby("query")[["intersection_bg", "union_bg", "iou", "asked"]].sum()
        return cls(
            inter=wide["intersection_fg"].to_numpy(),
            union=wide["union_fg"].to_numpy(),
            asked=wide["asked"].to_numpy(),
            back=rest[["intersection_bg", "union_bg"]].to_numpy(dtype=numpy.float64),
            ious=rest[["iou", "asked"]].to_numpy(),
            novel=rows.groupby("class_id")["novel"].max().to_numpy() == 1,
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
        changed = {
            name: change(part) for name, part in attrs.asdict(self).items() if name != "novel"
        }
        return Sums(**changed, novel=self.novel)

    def class_ious(self) -> Floats:
        """Return the class IoU, (…, C) in percent; NaN for a class without episodes."""
        ious = 100.0 * _ratio(self.inter, self.union)
        return numpy.where(self.asked > 0, ious, numpy.nan)

    def scores(self) -> dict[str, Floats]:
        """Return the scores of `fssbench.metrics.iou.IoU`, in percent."""
        ious = _ratio(self.inter, self.union)

        def mean(some: Any = slice(None)) -> Floats:
            # A class without episodes in a replicate is left out of the mean.
            found: Floats = ious[..., some].sum(-1) / (self.asked[..., some] > 0).sum(-1).clip(1)
            return 100.0 * found

        base, novel = mean(~self.novel), mean(self.novel)
        foreground = _ratio(self.inter.sum(-1), self.union.sum(-1))
        background = _ratio(self.back[..., 0], self.back[..., 1])
        episodes = _ratio(self.ious[..., 0], self.ious[..., 1])
        return {
            "miou": mean(),
            "fb_iou": 50.0 * (foreground + background),
            "episode_miou": 100.0 * episodes,
            "background_iou": 100.0 * background,
            "base_miou": base,
            "novel_miou": novel,
            "harmonic_mean": 2 * _ratio(base * novel, base + novel),
        }


def _ratio(part: Floats, whole: Floats) -> Floats:
    zero = numpy.zeros(numpy.broadcast(part, whole).shape)
    return numpy.divide(part, whole, out=zero, where=numpy.asarray(whole) > 0)
