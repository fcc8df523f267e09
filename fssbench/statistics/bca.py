"""The bias-corrected and accelerated bootstrap (Efron 1987): intervals, and p-values from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
from scipy.special import ndtr, ndtri

from fssbench.statistics.sums import Floats


def bca_interval(
    replicates: Floats, point: float, influence: Floats, level: float
) -> tuple[float, float]:
    """Return the low and high end of the interval; both are `point` if nothing varies.

    Args:
        replicates: (R,) statistic of each bootstrap sample.
        point: statistic of the data.
        influence: (N,) influence of each unit of the data on the statistic, e.g. the mean of the
            leave-one-out values minus each of them. Its scale does not matter.
        level: coverage, between 0 and 1.
    """
    if _constant(replicates, influence):
        return point, point
    bias, acceleration = _corrections(replicates, point, influence)
    tails = ndtri([(1 - level) / 2, (1 + level) / 2])
    shifted = bias + (bias + tails) / (1 - acceleration * (bias + tails))
    low, high = numpy.quantile(replicates, ndtr(shifted))
    return float(low), float(high)


def mean_over_folds(
    key: Any, replicates: Sequence[Mapping[Any, Floats]], left_out: Sequence[Mapping[Any, Floats]]
) -> tuple[Floats, Floats]:
    """Return replicates and influences of the mean of a statistic over folds.

    Args:
        key: key of the statistic.
        replicates: (R,) replicates of the statistics of each fold.
        left_out: leave-one-out values of the statistics of each fold.
    """
    folds = len(replicates)
    mean: Floats = numpy.add.reduce([each[key] for each in replicates]) / folds
    # The influence of a unit on the mean is 1 / folds of that on its own fold.
    return mean, numpy.concatenate([(x[key].mean() - x[key]) / folds for x in left_out])


def bca_p_value(replicates: Floats, point: float, influence: Floats) -> float:
    """Return the two-sided p-value of the hypothesis that the statistic is 0.

    It is 1 minus the level at which an interval ends at 0, so it is below 0.05 if the 95 % interval
    excludes 0, up to the resolution of the replicates. It is never below 2 / (R + 1), the smallest
    p-value that R replicates can resolve.

    Args:
        replicates: as for `bca_interval`, like the other arguments.
        point: statistic of the data.
        influence: influence of each unit of the data on the statistic.
    """
    least = 2 / (len(replicates) + 1)
    if _constant(replicates, influence):
        return 1.0 if point == 0.0 else least
    if replicates.min() > 0.0 or replicates.max() < 0.0:
        return least
    bias, acceleration = _corrections(replicates, point, influence)
    distance = _quantile_of(0.0, replicates) - bias
    tail = ndtr(distance / max(1 + acceleration * distance, 1e-9) - bias)
    return float(numpy.clip(2 * min(tail, 1 - tail), least, 1.0))


def _constant(replicates: Floats, influence: Floats) -> bool:
    return not (influence**2).sum() or not replicates.std()


def _corrections(replicates: Floats, point: float, influence: Floats) -> tuple[float, float]:
    """Return bias and acceleration."""
    spread = float((influence**2).sum())
    return _quantile_of(point, replicates), float((influence**3).sum()) / (6.0 * spread**1.5)


def _quantile_of(value: float, replicates: Floats) -> float:
    """Return the rank of a value among the replicates, as a quantile of the normal distribution."""
    below = (replicates < value).mean() + 0.5 * (replicates == value).mean()
    return float(ndtri(numpy.clip(below, 1 / len(replicates), 1 - 1 / len(replicates))))
