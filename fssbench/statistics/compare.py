"""Paired comparison of two methods on the same episodes, from rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy
import pandas
from numpy.typing import NDArray

from fssbench.errors import FssbenchError
from fssbench.metrics.iou import IoU
from fssbench.statistics.bca import bca_interval, bca_p_value
from fssbench.statistics.sums import Floats, Sums

_KEYS = ("index", "class_id", "query")

BLOCK = 200
"""Replicates made at once, which bounds the memory for manifests of many queries."""


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
        """Whether the interval excludes zero."""
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
        wins, ties, losses: numbers of episodes in which the IoU of `b` is above, equal to and below
            that of `a`.
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
    folds = [_Fold.of(a, b, generator, resamples) for a, b in pairs]
    outcome = numpy.concatenate([_outcomes(a, b) for a, b in pairs])
    return Comparison(
        scores={name: _mean(folds, name, level) for name in folds[0].points},
        folds=tuple({name: _mean([fold], name, level) for name in fold.points} for fold in folds),
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


@attrs.frozen(kw_only=True)
class _Fold:
    """Scores of both methods, and their differences.

    Attributes:
        images: Q, query images.
        points: (a, b) by score.
        replicates: (R,) differences by score.
        left: (Q,) differences with each query image left out, by score.
        class_points: (2, C) class IoU of a and b.
        class_replicates: (R, C) differences; NaN where the replicate missed the class.
        class_left: (Q, C) differences with each query image left out.
    """

    images: int
    points: Mapping[str, tuple[float, float]]
    replicates: Mapping[str, Floats]
    left: Mapping[str, Floats]
    class_points: Floats
    class_replicates: Floats
    class_left: Floats

    @classmethod
    def of(
        cls,
        a: pandas.DataFrame,
        b: pandas.DataFrame,
        generator: numpy.random.Generator,
        resamples: int,
    ) -> _Fold:
        both = Sums.by_query(a), Sums.by_query(b)
        images = len(both[0].inter)
        scores, ious = [], []
        for start in range(0, resamples, BLOCK):
            weights = _draw(images, min(BLOCK, resamples - start), generator)
            one, other = (sums.weighted(weights) for sums in both)
            scores.append(_minus(other, one))
            ious.append(other.class_ious() - one.class_ious())
        total_a, total_b = (sums.total() for sums in both)
        left_a, left_b = (sums.without_each() for sums in both)
        score_a, score_b = total_a.scores(), total_b.scores()
        return cls(
            images=images,
            points={name: (float(score_a[name]), float(score_b[name])) for name in score_a},
            replicates={
                name: numpy.concatenate([block[name] for block in scores]) for name in score_a
            },
            left=_minus(left_b, left_a),
            class_points=numpy.stack([total_a.class_ious(), total_b.class_ious()]),
            class_replicates=numpy.concatenate(ious),
            class_left=left_b.class_ious() - left_a.class_ious(),
        )


def _draw(images: int, count: int, generator: numpy.random.Generator) -> Floats:
    """Draw the multiplicity of each image in each of `count` replicates: (count, images).

    This is many times faster than `Generator.multinomial`, and has the same distribution.
    """
    drawn = generator.integers(images, size=(count, images))
    return numpy.stack([numpy.bincount(line, minlength=images) for line in drawn]).astype(float)


def _minus(b: Sums, a: Sums) -> dict[str, Floats]:
    of_a = a.scores()
    return {name: values - of_a[name] for name, values in b.scores().items()}


def _mean(folds: Sequence[_Fold], name: str, level: float) -> Difference:
    """Return the mean over folds, as in `fssbench.statistics.intervals.score_intervals`."""
    count = len(folds)
    a, b = (sum(fold.points[name][side] for fold in folds) / count for side in (0, 1))
    replicates: Floats = numpy.add.reduce([fold.replicates[name] for fold in folds]) / count
    influence = numpy.concatenate(
        [(fold.left[name].mean() - fold.left[name]) / count for fold in folds]
    )
    lone = any(fold.images == 1 for fold in folds)
    return _difference(a, b, replicates, influence, level, lone=lone)


def _difference(
    a: float, b: float, replicates: Floats, influence: Floats, level: float, *, lone: bool
) -> Difference:
    if lone:
        return Difference(a=a, b=b, difference=b - a, low=-100.0, high=100.0, p_value=1.0)
    low, high = bca_interval(replicates, b - a, influence, level)
    p_value = bca_p_value(replicates, b - a, influence)
    return Difference(a=a, b=b, difference=b - a, low=low, high=high, p_value=p_value)


def _classes(
    table: int, fold: _Fold, rows: pandas.DataFrame, level: float
) -> list[ClassDifference]:
    counts = rows.groupby("class_id")["query"].agg(["size", "nunique"]).reset_index()
    lines = []
    for column, (class_id, episodes, images) in enumerate(counts.to_numpy("int64").tolist()):
        a, b = fold.class_points[:, column].tolist()
        replicates, left = fold.class_replicates[:, column], fold.class_left[:, column]
        there = replicates[~numpy.isnan(replicates)]
        iou = _difference(a, b, there, left.mean() - left, level, lone=images == 1)
        lines.append(
            ClassDifference(
                table=table, class_id=class_id, episodes=episodes, images=images, iou=iou
            )
        )
    return lines


def _outcomes(a: pandas.DataFrame, b: pandas.DataFrame) -> NDArray[numpy.int64]:
    """Return the sign of the difference of each episode's IoU, in exact integer arithmetic."""
    (part_a, whole_a), (part_b, whole_b) = (_own_iou(rows) for rows in (a, b))
    return numpy.sign(part_b * whole_a - part_a * whole_b)


def _own_iou(rows: pandas.DataFrame) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
    """Return numerator and denominator; the IoU of an episode without any foreground is 1."""
    part, whole = (rows[name].to_numpy("int64") for name in ("intersection_fg", "union_fg"))
    empty = whole == 0
    return numpy.where(empty, 1, part), numpy.where(empty, 1, whole)


def _check_same_episodes(a: pandas.DataFrame, b: pandas.DataFrame, where: str) -> None:
    for name, rows in (("first", a), ("second", b)):
        missing = [column for column in (*_KEYS, *IoU.columns) if column not in rows.columns]
        if missing:
            raise FssbenchError(
                f"{where}the {name} table lacks the column {', '.join(missing)}; evaluate again, "
                "with the metric iou"
            )
    if len(a) != len(b):
        raise FssbenchError(
            f"{where}{len(a)} rows and {len(b)} rows: not the same episodes; evaluate both on one "
            "manifest"
        )
    if not len(a):
        raise FssbenchError(f"{where}there are no rows to compare")
    for column in _KEYS:
        differ = a[column].to_numpy() != b[column].to_numpy()
        if differ.any():
            row = int(differ.argmax())
            raise FssbenchError(
                f"{where}row {row} is of {column} {a[column].iloc[row]} in the first table and "
                f"{b[column].iloc[row]} in the second: not the same episodes; evaluate both on one "
                "manifest"
            )
