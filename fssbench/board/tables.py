"""Tables as data: results that share a table, their ranks, means and intervals."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import attrs

from fssbench.board.archive import cell
from fssbench.board.calculation import Calculation
from fssbench.board.drafts import Draft, digests_of, grouped, make_drafts
from fssbench.board.labels import Labels
from fssbench.board.published import PublishedRow, published_rows
from fssbench.board.ranking import HARMONIC, Method, any_record, group_ranks, is_replay
from fssbench.results.record import RECORD_FILE, Record
from fssbench.results.result import Result

K = TypeVar("K")
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Row:
    """A method on a board; its scores are percentages.

    Attributes:
        rank: rank from 1, equal in a group; see `group_ranks`. None for the reasons in `notes`.
        method: the matcher, and its differences from other rows.
        backbone: the encoder, and its weights if they are not the usual ones.
        records: records by fold, ascending.
        mean: mean over the table's `averaged` folds; None if the row lacks one.
        interval: 95 % interval of `mean`.
        fb_iou: mean over the same folds.
        notes: reasons why the row has no rank.
    """

    rank: int | None
    method: str
    backbone: str
    records: Mapping[int, Record]
    mean: float | None
    interval: tuple[float, float] | None
    fb_iou: float | None
    notes: tuple[str, ...]

    @property
    def folds(self) -> dict[int, float]:
        """Class mIoU by fold."""
        return {fold: record.scores["miou"] for fold, record in self.records.items()}

    @property
    def j_and_f(self) -> float | None:
        """J&F, mean over the folds; None if it was not measured."""
        return self.score("j_and_f")

    def score(self, name: str) -> float | None:
        """Return a score, mean over the folds; None if it was not measured."""
        return _known(fmean, (r.scores.get(name) for r in self.records.values()))

    @property
    def links(self) -> dict[int, str]:
        """Path of each fold's record, relative to the board."""
        return {fold: f"{cell(record)}/{RECORD_FILE}" for fold, record in self.records.items()}

    @property
    def checkpoints(self) -> dict[int, str]:
        """SHA-256 of each fold's checkpoint."""
        trained = ((fold, record.checkpoint) for fold, record in self.records.items())
        return {fold: checkpoint.sha256 for fold, checkpoint in trained if checkpoint}

    @property
    def parameters(self) -> int | None:
        """Number of learnable parameters, which may depend on the fold: the largest."""
        return _known(max, (r.cost.learnable_parameters for r in self.records.values()))

    @property
    def seconds(self) -> float | None:
        """Seconds per episode, mean over the folds."""
        return _known(fmean, (r.cost.seconds_per_episode for r in self.records.values()))


@attrs.frozen(kw_only=True)
class Episodes:
    """Episodes of a table's rows on a fold: equal digests, equal episodes.

    Attributes:
        digest: digest of the manifest.
        content: digest of the content of the images; "" if no record has it.
        count: number of episodes.
        images: number of query images.
        dropped: names of the classes that were left out.
    """

    digest: str
    content: str
    count: int
    images: int
    dropped: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Table:
    """Rows that may be compared.

    Attributes:
        record: record of a row; protocol, shots, seed, split, scored size and fingerprint are equal
            in all rows.
        replay: True for a replay of a published protocol, whose rows never rank.
        qualifier: difference from other tables of the same setting, "" without any.
        episodes: episodes by fold; a fold with cut manifests only has none.
        folds: the fold columns.
        averaged: folds of the means: all folds of the rows that may rank.
        rows: rows, best first; those without a rank are last.
    """

    record: Record
    replay: bool
    qualifier: str
    episodes: Mapping[int, Episodes]
    folds: tuple[int, ...]
    averaged: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def ranked(self) -> int:
        """Number of rows with a rank."""
        return sum(row.rank is not None for row in self.rows)

    @functools.cached_property  # each row asks
    def generalised(self) -> bool:
        """True if rows have scores of base and of novel classes."""
        return any(row.score(HARMONIC) is not None for row in self.rows)

    @functools.cached_property  # each row asks
    def has_j_and_f(self) -> bool:
        """True if J&F was measured for a row."""
        return any(row.j_and_f is not None for row in self.rows)

    @property
    def mean_name(self) -> str:
        """Heading of the column by which rows are sorted."""
        if len(self.folds) == 1:
            return f"mIoU, fold {self.folds[0]}"
        of = "" if self.averaged == self.folds else f" of {', '.join(map(str, self.averaged))}"
        return f"Mean{of}"


@attrs.frozen(kw_only=True)
class Board:
    """The board of a dataset: measured tables, and published rows by shots."""

    dataset: str
    tables: tuple[Table, ...]
    published: Mapping[int, Sequence[PublishedRow]]


def _known(function: Callable[[list[K]], T], values: Iterable[K | None]) -> T | None:
    """Apply a function to values; None if one of them is None."""
    found = list(values)
    known = [value for value in found if value is not None]
    return function(known) if len(known) == len(found) else None


def make_boards(results: Sequence[Result], using: Calculation | None = None) -> list[Board]:
    """Return a board for each dataset, sorted by name.

    Boards depend on the results only, not on their order or folders.

    Args:
        results: verified results.
        using: calculation that verified the results; None for a new one.
    """
    if using is None:
        with Calculation() as using:
            return make_boards(results, using)
    datasets = grouped((r.record.dataset.name, r) for r in results)
    drafts = {name: make_drafts(members) for name, members in sorted(datasets.items())}
    every = [draft for each in drafts.values() for draft in each]
    complete = [folds for draft in every for folds in draft.complete if folds]
    intervals = iter(using.intervals(complete))
    tables = {
        id(draft): _table(draft, [next(intervals) if c else None for c in draft.complete], using)
        for draft in every
    }
    return [
        Board(
            dataset=name,
            tables=tuple(tables[id(draft)] for draft in each),
            published=published_rows(name),
        )
        for name, each in drafts.items()
    ]


def _table(
    draft: Draft, intervals: Sequence[tuple[float, float] | None], calculation: Calculation
) -> Table:
    methods = draft.methods
    first, labels = any_record(methods[0]), Labels(map(any_record, methods))
    rows = [
        (_row(draft, index, labels, interval), complete)
        for index, (interval, complete) in enumerate(zip(intervals, draft.complete, strict=True))
    ]
    return Table(
        record=first,
        replay=is_replay(first.protocol),
        qualifier=draft.qualifier,
        episodes=_episodes(methods),
        folds=tuple(sorted({fold for method in methods for fold in method})),
        averaged=tuple(draft.averaged),
        rows=tuple(_ranked(rows, calculation)),
    )


def _row(draft: Draft, index: int, labels: Labels, interval: tuple[float, float] | None) -> Row:
    method = draft.methods[index]
    folds = {fold: method[fold].record for fold in sorted(method)}
    records = list(folds.values())
    missing = [str(fold) for fold in draft.averaged if fold not in folds]
    complete = [] if missing else [folds[fold] for fold in draft.averaged]
    return Row(
        rank=None,
        method=labels.method(records),
        backbone=labels.backbone(records[0]),
        records=folds,
        mean=fmean(record.scores["miou"] for record in complete) if complete else None,
        interval=interval,
        fb_iou=fmean(record.scores["fb_iou"] for record in complete) if complete else None,
        notes=(
            *draft.notes[index],
            *([f"fold {', '.join(missing)} missing"] if missing else []),
        ),
    )


def _ranked(rows: Iterable[tuple[Row, Sequence[Result]]], calculation: Calculation) -> list[Row]:
    """Return rows with their ranks, best first.

    Rows that may rank have complete manifests of equal digests on all averaged folds, so that any
    two of them can be compared episode by episode.
    """
    rows = sorted(rows, key=lambda p: (-(p[0].mean or 0.0), p[0].method, p[0].backbone))
    may_rank = [(row, folds) for row, folds in rows if not row.notes]
    differ = calculation.comparison([folds for _, folds in may_rank])
    ranks = group_ranks(range(len(may_rank)), differ)
    ranked = [attrs.evolve(row, rank=rank) for (row, _), rank in zip(may_rank, ranks, strict=True)]
    return ranked + [row for row, _ in rows if row.notes]


def _episodes(methods: Sequence[Method]) -> dict[int, Episodes]:
    found: dict[int, Episodes] = {}
    for method in methods:
        for fold, (digest, content) in digests_of(method).items():
            info = method[fold].record.manifest
            if fold not in found:
                images = len({episode.query for episode in method[fold].manifest().episodes})
                found[fold] = Episodes(
                    digest=digest, content=content, count=info.episodes, images=images,
                    dropped=info.dropped,
                )  # fmt: skip
            elif content:
                found[fold] = attrs.evolve(found[fold], content=content)
    return dict(sorted(found.items()))
