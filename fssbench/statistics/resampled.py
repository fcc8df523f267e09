"""Bootstrap confidence intervals of any score that is a function of a table of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy
import pandas

from fssbench.statistics.bca import bca_interval
from fssbench.statistics.intervals import BLOCK

Summarise = Callable[[pandas.DataFrame], Mapping[str, float]]


def resampled_intervals(
    rows: pandas.DataFrame,
    summarise: Summarise,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Intervals as `fssbench.statistics.intervals.score_intervals` makes them, for any scores.

    Query images are drawn with all their rows and each replicate's table is summarised anew, which
    needs to know nothing about the scores and is slower by as much. For the scores of
    `fssbench.metrics.iou.IoU` the replicates are the same.

    Args:
        rows: columns ``class_id``, ``query`` and those that the scores are made of.
        summarise: scores by name of such a table. A replicate may lack a class.
        level: coverage.
        resamples: bootstrap replicates.
        seed: of the replicates.

    Returns:
        (low, high) by score, in the score's own unit. Both are the score itself where nothing
        varies, so also where there is one query image only. A score that is not a finite number in
        some replicate has no interval and is left out.
    """
    codes, images = pandas.factorize(rows["query"], sort=True)
    queries = len(images)
    point = summarise(rows)
    if queries == 1:
        return {name: (float(value), float(value)) for name, value in point.items()}
    generator = numpy.random.default_rng(seed)
    replicates = []
    for start in range(0, resamples, BLOCK):
        count = min(BLOCK, resamples - start)
        weights = generator.multinomial(queries, numpy.full(queries, 1 / queries), count)
        for times in weights:
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
            influence = without.mean() - without
            intervals[name] = bca_interval(many, float(value), influence, level)
    return intervals
