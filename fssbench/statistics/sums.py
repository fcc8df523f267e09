"""Sums of pixel counts over rows, and the IoU scores that follow from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import attrs
import numpy
import pandas
from numpy.typing import NDArray

Floats = NDArray[numpy.float64]

SCORES = ("miou", "fb_iou", "episode_miou")
"""Names of the scores, in order."""


def score_names(rows: pandas.DataFrame) -> tuple[str, ...]:
    """Return the names of the scores of a table, see `fssbench.metrics.iou.IoU`."""
    several = ("background_iou",) if "way" in rows.columns else ()
    known = ("base_miou", "novel_miou", "harmonic_mean") if "novel" in rows.columns else ()
    return (*SCORES, *several, *known)


@attrs.frozen(kw_only=True)
class ClassSums:
    """Sums over rows by class; the first axes of each array are replicates or query images.

    Attributes:
        inter, union: (…, C) foreground pixels by class, classes by ascending id.
        asked: (…, C) number of episodes by class.
    """

    inter: Floats
    union: Floats
    asked: Floats

    def total(self) -> Self:
        """Return the sums over all query images."""
        return self._each(lambda part: part.sum(0))

    def without_each(self) -> Self:
        """Return the sums with each query image left out."""
        return self._each(lambda part: part.sum(0) - part)

    def weighted(self, weights: Floats) -> Self:
        """Return the sums weighted by the multiplicity of each query image; weights are (R, Q)."""
        return self._each(lambda part: weights @ part)

    def _each(self, change: Callable[[Floats], Floats]) -> Self:
        parts = attrs.asdict(self, recurse=False)
        parts.pop("novel", None)
        return attrs.evolve(self, **{name: change(part) for name, part in parts.items()})

    def class_ious(self) -> Floats:
        """Return the class IoU, (…, C) in percent; NaN for a class without episodes."""
        ious = 100.0 * _ratio(self.inter, self.union)
        return numpy.where(self.asked > 0, ious, numpy.nan)

    def miou(self, some: Any = slice(None)) -> Floats:
        """Return the mean IoU of some classes in percent, by default of all."""
        ious, asked = _ratio(self.inter, self.union)[..., some], self.asked[..., some]
        # A class without episodes in a replicate is left out of the mean.
        found: Floats = ious.sum(-1) / (asked > 0).sum(-1).clip(1)
        return 100.0 * found


@attrs.frozen(kw_only=True)
class Sums(ClassSums):
    """All sums that the IoU scores follow from.

    Attributes:
        back: (…, 2) background pixels, intersection and union.
        ious: (…, 2) sum of the IoU of each episode, and number of episodes.
        novel: bool (C,), False for base classes, which only some tables have.
    """

    back: Floats
    ious: Floats
    novel: NDArray[numpy.bool_]

    @classmethod
    def by_query(cls, table: pandas.DataFrame) -> Sums:
        """Return the sums of each query image's rows; query images by ascending id."""
        query, queries = pandas.factorize(table["query"], sort=True)
        column, classes = pandas.factorize(table["class_id"], sort=True)
        iou = (table["intersection_fg"] / table["union_fg"]).fillna(1.0)
        rest = iou.groupby(query).agg(["sum", "size"])
        known = table["novel"] if "novel" in table.columns else pandas.Series(1, table.index)

        def add(name: str, index: Any, *shape: int) -> Floats:
            found = numpy.zeros(shape, numpy.int64)  # exact, unlike sums of floats
            numpy.add.at(found, index, table[name].to_numpy() if name else 1)
            return found.astype(numpy.float64)

        both = (query, column), len(queries), len(classes)
        back = [add(f"{part}_bg", query, len(queries)) for part in ("intersection", "union")]
        return cls(
            inter=add("intersection_fg", *both),
            union=add("union_fg", *both),
            asked=add("", *both),
            back=numpy.stack(back, axis=-1),
            ious=rest.to_numpy(dtype=numpy.float64),
            novel=known.groupby(column).max().to_numpy() == 1,
        )

    def scores(self) -> dict[str, Floats]:
        """Return the scores of `fssbench.metrics.iou.IoU`, in percent."""
        base, novel = self.miou(~self.novel), self.miou(self.novel)
        foreground = _ratio(self.inter.sum(-1), self.union.sum(-1))
        background = _ratio(self.back[..., 0], self.back[..., 1])
        episodes = _ratio(self.ious[..., 0], self.ious[..., 1])
        return {
            "miou": self.miou(),
            "fb_iou": 50.0 * (foreground + background),
            "episode_miou": 100.0 * episodes,
            "background_iou": 100.0 * background,
            "base_miou": base,
            "novel_miou": novel,
            "harmonic_mean": 2 * _ratio(base * novel, base + novel),
        }


@attrs.frozen(kw_only=True)
class SparseSums:
    """`ClassSums` by query image, without the classes that an image is not a query of.

    Attributes:
        shape: number of query images, and number of classes.
        where: (N,) indices of images and classes in a flat array of this shape, ascending.
        inter, union, asked: (N,) as of `ClassSums`.
    """

    shape: tuple[int, int]
    where: NDArray[Any]
    inter: NDArray[Any]
    union: NDArray[Any]
    asked: NDArray[Any]

    @classmethod
    def of(cls, sums: ClassSums) -> SparseSums:
        """Return sums by query image without zeros."""
        where = numpy.flatnonzero(sums.asked)
        inter, union, asked = (part.flat[where] for part in (sums.inter, sums.union, sums.asked))
        images, classes = sums.asked.shape
        return cls(shape=(images, classes), where=where, inter=inter, union=union, asked=asked)

    def dense(self) -> ClassSums:
        """Return the sums with zeros."""
        parts = [numpy.zeros(self.shape) for _ in range(3)]
        for part, values in zip(parts, (self.inter, self.union, self.asked), strict=True):
            part.flat[self.where] = values
        return ClassSums(inter=parts[0], union=parts[1], asked=parts[2])


def resampled_mious(methods: Sequence[SparseSums], blocks: Iterable[Floats]) -> Floats:
    """Return the class mIoU of methods in replicates, (M, R) in percent.

    The values are those of ``ClassSums.weighted(block).miou()``, bit by bit, because sums of whole
    numbers are exact in any order. A class takes one matrix product for all methods.

    Args:
        methods: sums of the same episodes.
        blocks: (R, Q) multiplicities of the query images.
    """
    first = methods[0]
    if any(not numpy.array_equal(first.where, other.where) for other in methods):
        raise ValueError("methods of other episodes")
    images, classes = numpy.divmod(first.where, first.shape[1])
    columns = [first.asked, *(each.inter for each in methods), *(each.union for each in methods)]
    values = numpy.stack(columns, axis=1).astype(numpy.float64)
    of_class = [numpy.flatnonzero(classes == each) for each in range(first.shape[1])]
    found = []
    for block in blocks:
        sums = [block[:, images[own]] @ values[own] for own in of_class]
        asked, inter, union = numpy.split(numpy.stack(sums, axis=-1), [1, 1 + len(methods)], axis=1)
        found.append(ClassSums(inter=inter, union=union, asked=asked).miou().T)
    return numpy.concatenate(found, axis=1)


def _ratio(part: Floats, whole: Floats) -> Floats:
    zero = numpy.zeros(numpy.broadcast(part, whole).shape)
    return numpy.divide(part, whole, out=zero, where=numpy.asarray(whole) > 0)
