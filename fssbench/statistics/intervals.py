"""Bootstrap confidence intervals of the IoU scores, from rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy
import pandas

from fssbench.statistics.bca import bca_interval, mean_over_folds
from fssbench.statistics.sums import Floats, Sums, score_names

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
    folds = [Sums.by_query(table) for table in tables]
    points = [sums.total().scores() for sums in folds]
    left_out = [sums.without_each().scores() for sums in folds]
    replicates = []
    for sums in folds:
        weights = multiplicities(len(sums.inter), generator, resamples)
        replicates.append(joined([sums.weighted(block).scores() for block in weights]))
    intervals = {}
    for name in score_names(tables[0]):
        point = sum(float(scores[name]) for scores in points) / len(points)
        mean, influence = mean_over_folds(name, replicates, left_out)
        intervals[name] = bca_interval(mean, point, influence, level)
    return intervals


def multiplicities(
    images: int, generator: numpy.random.Generator, resamples: int
) -> Iterator[Floats]:
    """Yield multiplicities of images in replicates, in blocks of up to (BLOCK, images)."""
    for start in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - start)
        yield generator.multinomial(images, numpy.full(images, 1 / images), count).astype(float)


def joined(blocks: Sequence[Mapping[Any, Floats]]) -> dict[Any, Floats]:
    """Concatenate the values of blocks of replicates."""
    return {name: numpy.concatenate([block[name] for block in blocks]) for name in blocks[0]}
