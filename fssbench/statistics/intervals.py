"""Bootstrap confidence intervals of the IoU scores, from rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy
import pandas
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[numpy.float64]

BLOCK = 200
"""Replicates made at once, which bounds the memory for manifests of many queries."""


@attrs.frozen(kw_only=True)
class _Sums:
    """Sums over rows; each array's first axes count replicates or query images.

    Attributes:
        inter, union: (…, C) foreground pixels by class.
        back: (…, 2) background pixels, intersection and union.
        ious: (…, 2) sum of the episodes' own IoU, and number of episodes.
    """

    inter: Floats
    union: Floats
    back: Floats
    ious: Floats

    @classmethod
    def by_query(cls, table: pandas.DataFrame) -> _Sums:
        """Sums of each query image's rows."""
        wide = (
            table.groupby(["query", "class_id"])[["intersection_fg", "union_fg"]]
            .sum()
            .unstack(fill_value=0)
        )
        own = (table["intersection_fg"] / table["union_fg"]).fillna(1.0)
        rest = pandas.DataFrame(
            {
                "query": table["query"],
                "inter": table["intersection_bg"],
                "union": table["union_bg"],
                "iou": own,
                "episodes": 1,
            }
        )
        rest = rest.groupby("query").sum()
        return cls(
            inter=wide["intersection_fg"].to_numpy(dtype=numpy.float64),
            union=wide["union_fg"].to_numpy(dtype=numpy.float64),
            back=rest[["inter", "union"]].to_numpy(dtype=numpy.float64),
            ious=rest[["iou", "episodes"]].to_numpy(dtype=numpy.float64),
        )

    def total(self) -> _Sums:
        """Sums over all query images."""
        return self._each(lambda part: part.sum(0))

    def without_each(self) -> _Sums:
        """Sums with one query image left out, for each of them."""
        return self._each(lambda part: part.sum(0) - part)

    def weighted(self, weights: Floats) -> _Sums:
        """Sums with each query image taken so many times; weights are (R, Q)."""
        return self._each(lambda part: weights @ part)

    def _each(self, change: Callable[[Floats], Floats]) -> _Sums:
        return _Sums(**{f.name: change(getattr(self, f.name)) for f in attrs.fields(_Sums)})

    def scores(self) -> dict[str, Floats]:
        """The scores of `fssbench.metrics.iou.IoU`, in percent."""
        there = self.union > 0  # a class that a replicate missed is left out of its mean
        classes = _ratio(self.inter, self.union).sum(-1) / numpy.maximum(there.sum(-1), 1)
        foreground = _ratio(self.inter.sum(-1), self.union.sum(-1))
        background = _ratio(self.back[..., 0], self.back[..., 1])
        return {
            "miou": 100.0 * classes,
            "fb_iou": 50.0 * (foreground + background),
            "episode_miou": 100.0 * _ratio(self.ious[..., 0], self.ious[..., 1]),
        }


def score_intervals(
    tables: Sequence[pandas.DataFrame],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Intervals of class mIoU, FB-IoU and episode mIoU, or of their means over several folds.

    The episodes of a benchmark are not independent: the same query image returns with other
    supports and, in images of several objects, for other classes. So query images are drawn, with
    all their rows, not episodes. The interval is bias-corrected and accelerated (Efron 1987, BCa),
    the acceleration from leaving out one query image at a time.

    Args:
        tables: rows of one evaluation, or of one for each fold (then the mean is meant).
        level: coverage.
        resamples: bootstrap replicates.
        seed: of the replicates.

    Returns:
        (low, high) in percent by score. Both are the score itself where nothing varies.
    """
    generator = numpy.random.default_rng(seed)
    folds = [_fold(_Sums.by_query(table), generator, resamples) for table in tables]
    count = len(tables)
    intervals = {}
    for name in folds[0][0]:
        point = sum(float(points[name]) for points, _, _ in folds) / count
        replicates: Floats = numpy.add.reduce([many[name] for _, many, _ in folds]) / count
        # A query image moves the mean over folds by a share of what it moves its own fold.
        influence = numpy.concatenate(
            [(left[name].mean() - left[name]) / count for _, _, left in folds]
        )
        intervals[name] = _bca(replicates, point, influence, level)
    return intervals


def _fold(
    sums: _Sums, generator: numpy.random.Generator, resamples: int
) -> tuple[Mapping[str, Floats], Mapping[str, Floats], Mapping[str, Floats]]:
    """Scores of the rows, of each replicate, and with each query image left out."""
    queries = len(sums.inter)
    blocks = []
    for start in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - start)
        weights = generator.multinomial(queries, numpy.full(queries, 1 / queries), count)
        blocks.append(sums.weighted(weights.astype(numpy.float64)).scores())
    replicates = {name: numpy.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return sums.total().scores(), replicates, sums.without_each().scores()


def _bca(replicates: Floats, point: float, influence: Floats, level: float) -> tuple[float, float]:
    spread = float((influence**2).sum())
    if spread == 0.0 or not replicates.std():
        return point, point
    below = (replicates < point).mean() + 0.5 * (replicates == point).mean()
    bias = ndtri(numpy.clip(below, 1 / len(replicates), 1 - 1 / len(replicates)))
    acceleration = float((influence**3).sum()) / (6.0 * spread**1.5)
    tails = ndtri([(1 - level) / 2, (1 + level) / 2])
    shifted = bias + (bias + tails) / (1 - acceleration * (bias + tails))
    low, high = numpy.quantile(replicates, ndtr(shifted))
    return float(low), float(high)


def _ratio(part: Floats, whole: Floats) -> Floats:
    zero = numpy.zeros(numpy.broadcast(part, whole).shape)
    return numpy.divide(part, whole, out=zero, where=numpy.asarray(whole) > 0)
