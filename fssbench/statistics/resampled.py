"""Bootstrap confidence intervals of any score that is a function of a table of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy
import pandas

from fssbench.statistics.bca import bca_interval
from fssbench.statistics.intervals import multiplicities

Summarise = Callable[[pandas.DataFrame], Mapping[str, float]]


def resampled_intervals(
    rows: pandas.DataFrame,
    summarise: Summarise,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Return intervals as in `fssbench.statistics.intervals.score_intervals`, for any scores.

    Query images are drawn with all their rows and the table of each replicate is summarised anew,
    which is slower but needs no knowledge of the scores. For the scores of
    `fssbench.metrics.iou.IoU` the replicates are the same.

    Args:
        rows: columns ``class_id``, ``query`` and those that the scores are computed from.
        summarise: function from such a table to scores by name. A replicate may lack a class.
        level: coverage.
        resamples: number of bootstrap replicates.
        seed: seed of the replicates.

    Returns:
        (low, high) by score, in the unit of the score. Both are the score itself if nothing varies,
        e.g. with a single query image. A score that is not finite in some replicate has no interval
        and is omitted.
    """
    codes, images = pandas.factorize(rows["query"], sort=True)
    queries = len(images)
    point = summarise(rows)
    if queries == 1:
        return {name: (float(value), float(value)) for name, value in point.items()}
    replicates = []
    for block in multiplicities(queries, numpy.random.default_rng(seed), resamples):
        for times in block.astype(int):
            drawn = numpy.repeat(numpy.arange(len(rows)), times[codes])
            replicates.append(summarise(rows.iloc[drawn]))
    left_out = [summarise(rows[codes != code]) for code in range(queries)]
    intervals = {}
    for name, value in point.items():
        many, without = (
            numpy.array([scores[name] for scores in tables], dtype=numpy.float64)
            for tables in (replicates, left_out)
        )
        if numpy.isfinite(many).all() and numpy.isfinite(without).all():
            intervals[name] = bca_interval(many, float(value), without.mean() - without, level)
    return intervals
