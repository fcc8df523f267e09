"""Statistics of a manifest: class shares, repeated images, and expected interval widths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import attrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.metrics.iou import IoU
from fssbench.statistics.intervals import score_intervals
from fssbench.statistics.sums import Sums

COUNTS = (250, 500, 1000, 2000, 5000, 10_000)
"""Numbers of episodes that widths are reported for."""

SLICES = 8
"""Maximum of the stretches of n episodes that a mean width is measured on."""


@attrs.frozen(kw_only=True)
class ClassShare:
    """Counts of one class.

    Attributes:
        class_id, name: id and name of the class.
        episodes: number of its episodes.
        share: percentage of its episodes.
        queries: number of different query images in them.
        supports: number of different support images in them.
    """

    class_id: int
    name: str
    episodes: int
    share: float
    queries: int
    supports: int


@attrs.frozen(kw_only=True)
class Repeats:
    """Counts of repeated items.

    Attributes:
        uses: number of items.
        distinct: number of different items.
        most: count of the most frequent item.
    """

    uses: int
    distinct: int
    most: int

    @classmethod
    def of(cls, items: Iterable[Hashable]) -> Repeats:
        """Count items."""
        counts = Counter(items)
        return cls(uses=counts.total(), distinct=len(counts), most=max(counts.values(), default=0))


@attrs.frozen(kw_only=True)
class Width:
    """The precision of a score from n episodes.

    Attributes:
        episodes: number of episodes n.
        images: number of different query images, mean over the stretches; None if unknown.
        effective: effective number of query images, mean over the stretches, see
            `effective_images`; None if unknown.
        width: width of the 95 % interval of class mIoU, high - low, in percentage points, mean over
            the stretches; None without rows.
        stretches: number of measured stretches of n consecutive episodes; 0 if the width follows
            from the longest measured one by 1 / sqrt(n).
    """

    episodes: int
    images: float | None
    effective: float | None
    width: float | None
    stretches: int


@attrs.frozen(kw_only=True)
class EpisodeStats:
    """Statistics of the episodes of a manifest.

    Attributes:
        classes: counts of each class, in the manifest's order.
        queries: repeats of query images.
        supports: repeats of support images over all shots.
        pairs: repeats of (class, query image, support image).
        whole: repeats of whole episodes: class, query and supports.
        twice: number of episodes with a support image more than once.
    """

    classes: tuple[ClassShare, ...]
    queries: Repeats
    supports: Repeats
    pairs: Repeats
    whole: Repeats
    twice: int

    def to_fields(self) -> dict[str, Any]:
        """Return the statistics as JSON values."""
        return attrs.asdict(self)


def episode_stats(manifest: Manifest) -> EpisodeStats:
    """Count classes and repeats of a manifest; each way of an episode counts."""
    episodes = manifest.by_way()
    return EpisodeStats(
        classes=tuple(_share(manifest, class_id, name) for class_id, name in manifest.classes),
        queries=Repeats.of(e.query for e in manifest.episodes),
        supports=Repeats.of(image for e in episodes for image in e.support),
        pairs=Repeats.of((e.class_id, e.query, image) for e in episodes for image in e.support),
        whole=Repeats.of((e.query, e.targets) for e in manifest.episodes),
        twice=sum(len(set(e.support)) < len(e.support) for e in episodes),
    )


def check_rows(rows: pandas.DataFrame, manifest: Manifest) -> None:
    """Raise an `FssbenchError` unless the rows are those of the manifest's episodes, in order."""
    reason = ""
    ways = manifest.by_way()
    if len(rows) != len(ways):
        reason = f"{len(rows)} rows, but the manifest has {len(manifest.episodes)} episodes"
    for class_id, query, e in zip(rows["class_id"], rows["query"], ways, strict=False):
        if not reason and (class_id, query) != (e.class_id, e.query):
            reason = f"row {e.index} is of {query}, but its episode in the manifest of {e.query}"
    if reason:
        raise FssbenchError(f"{reason}; give the run of this manifest")


def widths(
    manifest: Manifest,
    rows: pandas.DataFrame | None = None,
    *,
    counts: Sequence[int] = COUNTS,
    resamples: int = 1000,
) -> tuple[Width, ...]:
    """Return the expected width of the interval of class mIoU by number of episodes.

    The manifest is cut into stretches of n consecutive episodes, each like the manifest of a
    balanced protocol of n episodes. Up to `SLICES` of them are measured with
    `fssbench.statistics.intervals.score_intervals`, the bootstrap clustered by query image. Beyond
    the length of the manifest, the width is that of all its episodes times sqrt(length / n), as for
    further episodes of *other* images. If there are no other images, the interval is wider, because
    repeated images add little information.

    Args:
        manifest: manifest to cut.
        rows: rows of an evaluation of the manifest, in order; None for counts of images only.
        counts: numbers of episodes.
        resamples: number of bootstrap replicates of each interval.

    Raises:
        FssbenchError: the rows are not of this manifest, or lack the IoU columns.
    """
    if rows is not None:
        check_rows(rows, manifest)
        if missing := [name for name in IoU.columns if name not in rows.columns]:
            raise FssbenchError(f"these rows lack the column {', '.join(missing)}; evaluate again")
    total = len(manifest.episodes)
    found = [
        _measured(manifest, rows, n, resamples)
        for n in sorted({n for n in (*counts, total) if 1 <= n <= total})
    ]
    longest = found[-1].width if found else None
    for n in sorted({n for n in counts if n > total}):
        width = None if longest is None else longest * (total / n) ** 0.5
        found.append(Width(episodes=n, images=None, effective=None, width=width, stretches=0))
    return tuple(found)


def stretches(total: int, n: int) -> list[slice]:
    """Return up to `SLICES` slices of length n, spread evenly over `total`, without overlap."""
    fitting = total // n
    count = min(fitting, SLICES)
    return [slice(k * fitting // count * n, (k * fitting // count + 1) * n) for k in range(count)]


def effective_images(queries: Iterable[str]) -> float:
    """Return Kish's effective number of images: (sum of m)² / sum of m², for m uses of each."""
    counts = Counter(queries)
    squares = sum(m * m for m in counts.values())
    return counts.total() ** 2 / squares if squares else 0.0


def _measured(manifest: Manifest, rows: pandas.DataFrame | None, n: int, resamples: int) -> Width:
    parts = stretches(len(manifest.episodes), n)
    asked = [[e.query for e in manifest.episodes[part]] for part in parts]
    width = None
    if rows is not None:
        ends = [
            score_intervals([rows.iloc[rows_of_part]], resamples=resamples, seed=number)["miou"]
            for number, part in enumerate(parts)
            for rows_of_part in [slice(part.start * manifest.ways, part.stop * manifest.ways)]
        ]
        width = sum(high - low for low, high in ends) / len(parts)
    return Width(
        episodes=n,
        images=sum(len(set(queries)) for queries in asked) / len(parts),
        effective=sum(map(effective_images, asked)) / len(parts),
        width=width,
        stretches=len(parts),
    )


def miou(rows: pandas.DataFrame) -> float:
    """Return the class mIoU of a table of rows, in percent."""
    return float(Sums.by_query(rows).total().scores()["miou"])


def _share(manifest: Manifest, class_id: int, name: str) -> ClassShare:
    own = [e for e in manifest.by_way() if e.class_id == class_id]
    return ClassShare(
        class_id=class_id,
        name=name,
        episodes=len(own),
        share=100 * len(own) / max(len(manifest.episodes), 1),
        queries=len({e.query for e in own}),
        supports=len({image for e in own for image in e.support}),
    )
