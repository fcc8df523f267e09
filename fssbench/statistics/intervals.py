"""Bootstrap confidence intervals of the IoU scores, from rows alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy
import pandas
from numpy.typing import NDArray

from fssbench.statistics.bca import bca_interval, mean_over_folds
from fssbench.statistics.sums import Floats, SparseSums, Sums, resampled_mious, score_names

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
    folds = [Sums.by_query(table) for table in tables]
    points = [sums.total().scores() for sums in folds]
    left_out = [sums.without_each().scores() for sums in folds]
    drawn = _drawn(tuple(len(sums.inter) for sums in folds), resamples, seed)
    replicates = [
        joined([sums.weighted(block.astype(float)).scores() for block in blocks])
        for sums, blocks in zip(folds, drawn, strict=True)
    ]
    intervals = {}
    for name in score_names(tables[0]):
        point = sum(float(scores[name]) for scores in points) / len(points)
        mean, influence = mean_over_folds(name, replicates, left_out)
        intervals[name] = bca_interval(mean, point, influence, level)
    return intervals


def miou_intervals(
    methods: Sequence[Sequence[SparseSums]],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Return the interval of the class mIoU of each method, equal to that of `score_intervals`.

    Args:
        methods: sums of each method by fold; a fold has the same episodes for all methods.
        level: coverage.
        resamples: number of bootstrap replicates.
        seed: seed of the replicates.
    """
    images = tuple(sums.shape[0] for sums in methods[0])
    drawn = iter(_drawn(images, resamples, seed))
    samples = miou_samples(methods, lambda _: (block.astype(float) for block in next(drawn)))
    return [_miou_interval(sample, level) for sample in samples]


@attrs.frozen(kw_only=True)
class MiouSamples:
    """The class mIoU of a method by fold, in percent.

    Attributes:
        points: value of each fold.
        replicates: (R,) values of the bootstrap samples of each fold.
        left_out: (images,) values with each query image left out, of each fold.
    """

    points: tuple[Floats, ...]
    replicates: tuple[Floats, ...]
    left_out: tuple[Floats, ...]


def miou_samples(
    methods: Sequence[Sequence[SparseSums]], draw: Callable[[int], Iterator[Floats]]
) -> list[MiouSamples]:
    """Return the samples of methods that are drawn together: equal images in each replicate.

    Args:
        methods: as for `miou_intervals`.
        draw: function from the number of query images of a fold to blocks of multiplicities.
    """
    folds = [resampled_mious(fold, draw(fold[0].shape[0])) for fold in zip(*methods, strict=True)]
    return [
        MiouSamples(
            points=tuple(sums.total().miou() for sums in dense),
            replicates=tuple(fold[number] for fold in folds),
            left_out=tuple(sums.without_each().miou() for sums in dense),
        )
        for number, dense in enumerate([sums.dense() for sums in method] for method in methods)
    ]


def _miou_interval(samples: MiouSamples, level: float) -> tuple[float, float]:
    replicates, left_out = (
        [{"miou": values} for values in folds] for folds in (samples.replicates, samples.left_out)
    )
    mean, influence = mean_over_folds("miou", replicates, left_out)
    point = sum(map(float, samples.points)) / len(samples.points)
    return bca_interval(mean, point, influence, level)


@functools.lru_cache(maxsize=1)
def _drawn(
    images: tuple[int, ...], resamples: int, seed: int
) -> tuple[tuple[NDArray[numpy.unsignedinteger[Any]], ...], ...]:
    """Return the blocks of `multiplicities` of each fold, drawn once for equal query images."""
    generator = numpy.random.default_rng(seed)
    return tuple(
        tuple(
            block.astype(numpy.min_scalar_type(int(block.max())))
            for block in multiplicities(count, generator, resamples)
        )
        for count in images
    )


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
