"""Bootstrap confidence intervals for scores that are ratios of sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import pandas
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[numpy.float64]


def miou_interval(
    tables: Sequence[pandas.DataFrame],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the class mIoU, or of its mean over several folds.

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
        (low, high) in percent. Both are the score itself when there is only one query image.
    """
    generator = numpy.random.default_rng(seed)
    point, influence = 0.0, []
    replicates: Floats = numpy.zeros(resamples)
    for table in tables:
        inter, union = _sums_by_cluster(table)
        clusters = len(inter)
        point += float(_miou(inter.sum(0), union.sum(0)))
        influence.append(_miou(inter.sum(0) - inter, union.sum(0) - union))
        weights = generator.multinomial(clusters, numpy.full(clusters, 1 / clusters), resamples)
        replicates += _miou(weights @ inter, weights @ union)
    count = len(tables)
    # Leaving out a query image of one fold moves the mean by a share of what it moves the fold.
    jackknife = numpy.concatenate([(fold.mean() - fold) / count for fold in influence])
    low, high = _bca(replicates / count, point / count, jackknife, level)
    return low, high


def _sums_by_cluster(table: pandas.DataFrame) -> tuple[Floats, Floats]:
    """Intersections and unions summed by (query image, class): two (Q, C) arrays."""
    sums = table.groupby(["query", "class_id"])[["intersection_fg", "union_fg"]].sum()
    wide = sums.unstack(fill_value=0)
    inter = wide["intersection_fg"].to_numpy(dtype=numpy.float64)
    return inter, wide["union_fg"].to_numpy(dtype=numpy.float64)


def _miou(inter: Floats, union: Floats) -> Floats:
    """Mean over the last axis of I/U in percent; a class that a replicate missed is left out."""
    there = union > 0
    ratios = numpy.divide(inter, union, out=numpy.zeros_like(inter), where=there)
    mean: Floats = 100.0 * ratios.sum(-1) / numpy.maximum(there.sum(-1), 1)
    return mean


def _bca(replicates: Floats, point: float, jackknife: Floats, level: float) -> tuple[float, float]:
    spread = float((jackknife**2).sum())
    if spread == 0.0 or not replicates.std():
        return point, point
    below = (replicates < point).mean() + 0.5 * (replicates == point).mean()
    bias = ndtri(numpy.clip(below, 1 / len(replicates), 1 - 1 / len(replicates)))
    acceleration = float((jackknife**3).sum()) / (6.0 * spread**1.5)
    tails = ndtri([(1 - level) / 2, (1 + level) / 2])
    shifted = bias + (bias + tails) / (1 - acceleration * (bias + tails))
    low, high = numpy.quantile(replicates, ndtr(shifted))
    return float(low), float(high)
