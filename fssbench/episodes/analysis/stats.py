"""What a manifest asks for, how often, and how exactly its scores can be known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import attrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.statistics.intervals import score_intervals
from fssbench.statistics.sums import Sums

COUNTS = (250, 500, 1000, 2000, 5000, 10_000)
"""Numbers of episodes that widths are told for."""

SLICES = 8
"""At most so many stretches of n episodes are measured; their mean width is told."""


@attrs.frozen(kw_only=True)
class ClassShare:
    """How often a class is asked for.

    Attributes:
        class_id, name: the class.
        episodes: how many ask for it.
        share: the same in percent of all.
        queries: different query images among them.
        supports: different support images among them.
    """

    class_id: int
    name: str
    episodes: int
    share: float
    queries: int
    supports: int


@attrs.frozen(kw_only=True)
class Repeats:
    """How often something returns.

    Attributes:
        uses: how often it is used in all.
        distinct: how many different ones there are.
        most: how often the most used one is used.
    """

    uses: int
    distinct: int
    most: int

    @classmethod
    def of(cls, things: Iterable[Hashable]) -> Repeats:
        """Count them."""
        counts = Counter(things)
        return cls(uses=counts.total(), distinct=len(counts), most=max(counts.values(), default=0))


@attrs.frozen(kw_only=True)
class Width:
    """How exactly a score is known after so many episodes.

    Attributes:
        episodes: n.
        images: different query images among them; the mean over the stretches. None if unknown.
        effective: images that would count as much if each were asked equally often (Kish):
            (sum of m)² / sum of m², with m episodes of an image. None if unknown.
        width: of the 95 % interval of class mIoU, high - low, in percentage points; the mean over
            the stretches. None without rows.
        stretches: of n consecutive episodes, that were measured; 0 where the width follows from
            the longest measured one by 1 / sqrt(n).
    """

    episodes: int
    images: float | None
    effective: float | None
    width: float | None
    stretches: int


@attrs.frozen(kw_only=True)
class EpisodeStats:
    """What a manifest asks for.

    Attributes:
        classes: shares by class, in the manifest's order.
        queries: query images.
        supports: support images, each position of each episode counted.
        pairs: (query image, support image) pairs of a class.
        whole: whole episodes: class, query and supports.
        twice: episodes that hold one support image more than once.
    """

    classes: tuple[ClassShare, ...]
    queries: Repeats
    supports: Repeats
    pairs: Repeats
    whole: Repeats
    twice: int

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        return attrs.asdict(self)


def episode_stats(manifest: Manifest) -> EpisodeStats:
    """Count classes and repeats of a manifest."""
    episodes = manifest.episodes
    return EpisodeStats(
        classes=tuple(_share(manifest, class_id, name) for class_id, name in manifest.classes),
        queries=Repeats.of(e.query for e in episodes),
        supports=Repeats.of(image for e in episodes for image in e.support),
        pairs=Repeats.of((e.class_id, e.query, image) for e in episodes for image in e.support),
        whole=Repeats.of((e.class_id, e.query, e.support, e.support_classes) for e in episodes),
        twice=sum(len(set(e.support)) < len(e.support) for e in episodes),
    )


def check_rows(rows: pandas.DataFrame, manifest: Manifest) -> None:
    """Raise an `FssbenchError` unless each row is of the manifest's episode at its place."""
    if len(rows) != len(manifest.episodes):
        raise FssbenchError(
            f"{len(rows)} rows, but the manifest has {len(manifest.episodes)} episodes; give the "
            "run that was made with this very manifest"
        )
    told = zip(rows["class_id"], rows["query"], strict=True)
    for (class_id, query), episode in zip(told, manifest.episodes, strict=True):
        if (class_id, query) != (episode.class_id, episode.query):
            raise FssbenchError(
                f"row {episode.index} is of {query}, the manifest asks about {episode.query}; give "
                "the run that was made with this very manifest"
            )


def widths(
    manifest: Manifest,
    rows: pandas.DataFrame | None = None,
    *,
    counts: Sequence[int] = COUNTS,
    resamples: int = 1000,
) -> tuple[Width, ...]:
    """Expected width of the interval of class mIoU by number of episodes.

    The manifest is cut into stretches of n consecutive episodes (each of them is what a balanced
    protocol of n episodes would ask), and `fssbench.statistics.intervals.score_intervals`, the
    bootstrap clustered by query image, measures each of up to `SLICES` of them. Beyond the
    manifest's length the width is that of the longest n, times sqrt(longest / n): what further
    episodes of *other* images would give. Where the images run out it is wider, because episodes
    that return to an image say little new about other images.

    Args:
        manifest: the episodes.
        rows: of an evaluation of it, in its order; None tells images only.
        counts: numbers of episodes.
        resamples: bootstrap replicates of each interval.

    Raises:
        FssbenchError: the rows are not of this manifest, or lack the IoU columns.
    """
    if rows is not None:
        check_rows(rows, manifest)
        _check_columns(rows)
    total = len(manifest.episodes)
    wanted = sorted({*(n for n in counts if n >= 1), *({total} if total else ())})
    found = [_measured(manifest, rows, n, resamples) for n in wanted if n <= total]
    longest = found[-1] if found else None
    for n in wanted:
        if n > total:
            width = longest and longest.width
            scaled = None if width is None else width * (total / n) ** 0.5
            found.append(Width(episodes=n, images=None, effective=None, width=scaled, stretches=0))
    return tuple(found)


def stretches(total: int, n: int) -> list[slice]:
    """Up to `SLICES` stretches of n places, spread evenly over `total`, none touching another."""
    fitting = total // n
    count = min(fitting, SLICES)
    return [slice(k * fitting // count * n, (k * fitting // count + 1) * n) for k in range(count)]


def effective_images(queries: Iterable[str]) -> float:
    """Kish's effective number of clusters: (sum of m)² / sum of m²."""
    counts = Counter(queries)
    squares = sum(m * m for m in counts.values())
    return counts.total() ** 2 / squares if squares else 0.0


def _measured(manifest: Manifest, rows: pandas.DataFrame | None, n: int, resamples: int) -> Width:
    parts = stretches(len(manifest.episodes), n)
    asked = [[e.query for e in manifest.episodes[part]] for part in parts]
    measured = None
    if rows is not None:
        ends = [
            score_intervals([rows.iloc[part]], resamples=resamples, seed=number)["miou"]
            for number, part in enumerate(parts)
        ]
        measured = sum(high - low for low, high in ends) / len(ends)
    return Width(
        episodes=n,
        images=sum(len(set(queries)) for queries in asked) / len(parts),
        effective=sum(map(effective_images, asked)) / len(parts),
        width=measured,
        stretches=len(parts),
    )


def _check_columns(rows: pandas.DataFrame) -> None:
    wanted = ("intersection_fg", "union_fg", "intersection_bg", "union_bg")
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise FssbenchError(f"these rows lack the column {', '.join(missing)}; evaluate again")


def miou(rows: pandas.DataFrame) -> float:
    """Class mIoU of a table of rows, in percent."""
    return float(Sums.by_query(rows).total().scores()["miou"])


def _share(manifest: Manifest, class_id: int, name: str) -> ClassShare:
    own = [e for e in manifest.episodes if e.class_id == class_id]
    return ClassShare(
        class_id=class_id,
        name=name,
        episodes=len(own),
        share=100 * len(own) / max(len(manifest.episodes), 1),
        queries=len({e.query for e in own}),
        supports=len({image for e in own for image in e.support}),
    )
