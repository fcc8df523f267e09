"""Paired comparison of two methods on the same episodes, from rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy
import pandas
from numpy.typing import NDArray

from fssbench.errors import FssbenchError
from fssbench.metrics.iou import IoU
from fssbench.statistics.bca import bca_interval, bca_p_value, mean_over_folds
from fssbench.statistics.intervals import BLOCK, MiouSamples, joined
from fssbench.statistics.sums import SCORES, Floats, Sums

_KEYS = ("index", "class_id", "query")

_Values = Mapping[Any, Floats]  # by name of a score, or column of a class


@attrs.frozen(kw_only=True)
class Difference:
    """One score of both methods, in percent.

    Attributes:
        a, b: score of each method.
        difference: b - a, in percentage points.
        low, high: ends of its confidence interval.
        p_value: two-sided p-value of the hypothesis of no difference.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """True if the interval excludes zero."""
        return not self.low <= 0.0 <= self.high


@attrs.frozen(kw_only=True)
class ClassDifference:
    """The IoU of one class.

    Attributes:
        table: index of the pair of tables, from 0.
        class_id: id of the class.
        episodes, images: numbers of episodes and of query images of the class.
        iou: difference of the IoU.
    """

    table: int
    class_id: int
    episodes: int
    images: int
    iou: Difference


@attrs.frozen(kw_only=True)
class Comparison:
    """Two methods on the same episodes.

    Attributes:
        scores: means over the folds by name (``miou``, ``fb_iou``, ``episode_miou``).
        folds: scores of each fold.
        classes: differences by fold and class.
        wins, ties, losses: numbers of episodes, or of their ways, in which the IoU of `b` is above,
            equal to and below that of `a`.
        images: number of query images of each fold.
    """

    scores: Mapping[str, Difference]
    folds: tuple[Mapping[str, Difference], ...]
    classes: tuple[ClassDifference, ...]
    wins: int
    ties: int
    losses: int
    images: tuple[int, ...]


def compare(
    pairs: Sequence[tuple[pandas.DataFrame, pandas.DataFrame]],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compute the differences b - a of the IoU scores, with intervals as in `score_intervals`.

    In each replicate both methods have the same query images, so the difficulty of an episode
    cancels and the interval of the difference is narrower than those of the scores. Folds are drawn
    independently of each other, and the statistic is the mean over them. Intervals are BCa,
    clustered by query image; a fold, or a class, with a single query image has the widest possible
    interval, -100 to 100. With few query images (fewer than about 30) the intervals of any
    bootstrap are too narrow.

    Args:
        pairs: rows of (a, b) on the same manifest, one pair for each fold.
        level: coverage.
        resamples: number of bootstrap replicates.
        seed: seed of the replicates.

    Raises:
        FssbenchError: the rows of a pair are not of the same episodes, or lack a column of
            `fssbench.metrics.iou.IoU`.
    """
    if not pairs:
        raise FssbenchError("nothing to compare: give the rows of at least one fold")
    generator = numpy.random.default_rng(seed)
    for number, (a, b) in enumerate(pairs):
        _check_same_episodes(a, b, f"pair {number}: " if len(pairs) > 1 else "")
    folds = [_fold(a, b, generator, resamples) for a, b in pairs]
    outcome = numpy.concatenate([_outcomes(a, b) for a, b in pairs])
    return Comparison(
        scores=_scores(folds, level),
        folds=tuple(_scores([fold], level) for fold in folds),
        classes=tuple(
            line
            for table, (fold, (a, _)) in enumerate(zip(folds, pairs, strict=True))
            for line in _classes(table, fold, a, level)
        ),
        wins=int((outcome > 0).sum()),
        ties=int((outcome == 0).sum()),
        losses=int((outcome < 0).sum()),
        images=tuple(fold.images for fold in folds),
    )


def miou_draws(resamples: int = 10_000, seed: int = 0) -> Callable[[int], Iterator[Floats]]:
    """Return a function that draws the replicates of `compare`, fold after fold."""
    generator = numpy.random.default_rng(seed)
    return lambda images: _draw(images, resamples, generator)


def compare_miou(a: MiouSamples, b: MiouSamples, *, level: float = 0.95) -> Difference:
    """Return the difference of the class mIoU, equal to that of `compare`.

    Args:
        a: samples of the first method, drawn by `miou_draws` as those of `b`.
        b: samples of the other method.
        level: coverage.
    """
    folds = [
        _Fold(
            images=len(without_a),
            a={"miou": point_a},
            b={"miou": point_b},
            replicates={"miou": drawn_b - drawn_a},
            left_out={"miou": without_b - without_a},
        )
        for point_a, drawn_a, without_a, point_b, drawn_b, without_b in zip(
            a.points, a.replicates, a.left_out, b.points, b.replicates, b.left_out, strict=True
        )
    ]
    return _mean(folds, "miou", level, lone=any(fold.images == 1 for fold in folds))


@attrs.frozen(kw_only=True)
class _Fold:
    """Scores of one fold, and the IoU of each class.

    Attributes:
        images: number of query images.
        a, b: values of each method.
        replicates: (R,) differences b - a of the replicates.
        left_out: (images,) differences with each query image left out.
    """

    images: int
    a: _Values
    b: _Values
    replicates: _Values
    left_out: _Values


def _fold(
    a: pandas.DataFrame, b: pandas.DataFrame, generator: numpy.random.Generator, resamples: int
) -> _Fold:
    of_a, of_b = Sums.by_query(a), Sums.by_query(b)
    images = len(of_a.inter)
    drawn = _draw(images, resamples, generator)
    return _Fold(
        images=images,
        a=_values(of_a.total()),
        b=_values(of_b.total()),
        replicates=joined([_minus(of_b.weighted(w), of_a.weighted(w)) for w in drawn]),
        left_out=_minus(of_b.without_each(), of_a.without_each()),
    )


def _draw(images: int, resamples: int, generator: numpy.random.Generator) -> Iterator[Floats]:
    """Yield multiplicities of images in replicates, in blocks of up to (BLOCK, images).

    This is many times faster than `multiplicities`, and has the same distribution.
    """
    for start in range(0, resamples, BLOCK):
        drawn = generator.integers(images, size=(min(BLOCK, resamples - start), images))
        yield numpy.stack([numpy.bincount(line, minlength=images) for line in drawn]).astype(float)


def _values(sums: Sums) -> _Values:
    return {**sums.scores(), **dict(enumerate(numpy.moveaxis(sums.class_ious(), -1, 0)))}


def _minus(b: Sums, a: Sums) -> _Values:
    of_a = _values(a)
    return {key: values - of_a[key] for key, values in _values(b).items()}


def _scores(folds: Sequence[_Fold], level: float) -> dict[str, Difference]:
    lone = any(fold.images == 1 for fold in folds)
    return {name: _mean(folds, name, level, lone=lone) for name in SCORES}


def _mean(folds: Sequence[_Fold], key: str | int, level: float, *, lone: bool) -> Difference:
    """Return the mean over folds, as in `fssbench.statistics.intervals.score_intervals`.

    Args:
        folds: folds.
        key: name of a score, or column of a class.
        level: coverage.
        lone: true if a fold or class has a single query image, which allows no interval.
    """
    a = sum(float(fold.a[key]) for fold in folds) / len(folds)
    b = sum(float(fold.b[key]) for fold in folds) / len(folds)
    if lone:
        return Difference(a=a, b=b, difference=b - a, low=-100.0, high=100.0, p_value=1.0)
    replicates, influence = mean_over_folds(
        key, [fold.replicates for fold in folds], [fold.left_out for fold in folds]
    )
    replicates = replicates[~numpy.isnan(replicates)]  # those without the class
    low, high = bca_interval(replicates, b - a, influence, level)
    p_value = bca_p_value(replicates, b - a, influence)
    return Difference(a=a, b=b, difference=b - a, low=low, high=high, p_value=p_value)


def _classes(
    table: int, fold: _Fold, rows: pandas.DataFrame, level: float
) -> list[ClassDifference]:
    counts = rows.groupby("class_id")["query"].agg(["size", "nunique"]).reset_index()
    return [
        ClassDifference(
            table=table, class_id=class_id, episodes=episodes, images=images,
            iou=_mean([fold], column, level, lone=images == 1),
        )
        for column, (class_id, episodes, images) in enumerate(counts.to_numpy("int64").tolist())
    ]  # fmt: skip


def _outcomes(a: pandas.DataFrame, b: pandas.DataFrame) -> NDArray[numpy.int64]:
    """Return the sign of the difference of each episode's IoU, in exact integer arithmetic."""
    # The IoU of an episode without any foreground is 1, here 1 / 1.
    part_a, part_b = (r["intersection_fg"].where(r["union_fg"] > 0, 1).to_numpy() for r in (a, b))
    whole_a, whole_b = (r["union_fg"].clip(lower=1).to_numpy() for r in (a, b))
    difference: NDArray[numpy.int64] = part_b * whole_a - part_a * whole_b
    return numpy.sign(difference)


def _check_same_episodes(a: pandas.DataFrame, b: pandas.DataFrame, where: str) -> None:
    for name, rows in (("first", a), ("second", b)):
        if missing := [c for c in (*_KEYS, *IoU.columns) if c not in rows.columns]:
            names = ", ".join(missing)
            raise FssbenchError(
                f"{where}the {name} table lacks the column {names}; evaluate with the metric iou"
            )
    if reason := _first_difference(a, b):
        raise FssbenchError(f"{where}{reason}: not the same episodes; evaluate on one manifest")
    if not len(a):
        raise FssbenchError(f"{where}there are no rows to compare")


def _first_difference(a: pandas.DataFrame, b: pandas.DataFrame) -> str:
    """Return a description of the first difference of the episodes, or ""."""
    if len(a) != len(b):
        return f"{len(a)} rows and {len(b)} rows"
    for name in _KEYS:
        one, other = a[name].to_numpy(), b[name].to_numpy()
        if (differ := one != other).any():
            row = int(differ.argmax())
            return f"row {row} is of {name} {one[row]} in one table and {other[row]} in the other"
    return ""
