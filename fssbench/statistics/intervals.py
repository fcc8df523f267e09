"""Bootstrap confidence intervals of the IoU scores, from rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy
import pandas

from fssbench.statistics.bca import bca_interval
from fssbench.statistics.sums import Floats, Sums

BLOCK = 200
"""Replicates computed at once, which bounds the memory for manifests of many queries."""


def score_intervals(
    tables: Sequence[pandas.DataFrame],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return intervals of class mIoU, FB-IoU and episode mIoU, or of their means over folds.

    The episodes of a benchmark are not independent: the same query image recurs with other
    supports and, if it shows several objects, for other classes. Therefore query images are
    resampled, with all their rows, not episodes. The interval is bias-corrected and accelerated
    (Efron 1987, BCa), with the acceleration from leaving out one query image at a time.

    Args:
        tables: rows of one evaluation, or of one evaluation per fold for the mean over folds.
        level: coverage.
        resamples: number of bootstrap replicates.
        seed: seed of the replicates.

    Returns:
        (low, high) in percent by score. Both are the score itself if nothing varies.
    """
    generator = numpy.random.default_rng(seed)
    folds = [_fold(Sums.by_query(table), generator, resamples) for table in tables]
    count = len(tables)
    intervals = {}
    for name in folds[0][0]:
        point = sum(float(points[name]) for points, _, _ in folds) / count
        replicates: Floats = numpy.add.reduce([many[name] for _, many, _ in folds]) / count
        # The influence of a query image on the mean is 1 / count of that on its own fold.
        influence = numpy.concatenate(
            [(left[name].mean() - left[name]) / count for _, _, left in folds]
        )
        intervals[name] = bca_interval(replicates, point, influence, level)
    return intervals


def _fold(
    sums: Sums, generator: numpy.random.Generator, resamples: int
) -> tuple[Mapping[str, Floats], Mapping[str, Floats], Mapping[str, Floats]]:
    """Return the scores of the rows, of each replicate, and with each query image left out."""
    queries = len(sums.inter)
    blocks = []
    for start in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - start)
        weights = generator.multinomial(queries, numpy.full(queries, 1 / queries), count)
        blocks.append(sums.weighted(weights.astype(numpy.float64)).scores())
    replicates = {name: numpy.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return sums.total().scores(), replicates, sums.without_each().scores()
