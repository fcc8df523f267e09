"""Tables as data: results that share a table, their ranks, means and intervals."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, TypeVar

import attrs

from fssbench import registry
from fssbench.board.archive import cell
from fssbench.board.calculation import Calculation
from fssbench.board.labels import Labels
from fssbench.board.published import PublishedRow, published_rows
from fssbench.errors import FssbenchError
from fssbench.results.method import method_id
from fssbench.results.record import RECORD_FILE, Record
from fssbench.results.result import Result
from fssbench.specs import ProtocolSpec

REPLAY = "replay of a published protocol"
"""Reason why a row has no rank: the list files of such a protocol cannot be checked."""

HARMONIC = "harmonic_mean"
MIXED = "the mean is mostly over base classes; compare harmonic means"
"""Reason why a row of generalised few-shot segmentation has no rank."""

K = TypeVar("K")
T = TypeVar("T")

# Results of a method in one setting, by fold.
Method = dict[int, Result]


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
    datasets = _grouped((r.record.dataset.name, r) for r in results)
    drafts = {name: _drafts(members) for name, members in sorted(datasets.items())}
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


def is_replay(protocol: str) -> bool:
    """Return True if a protocol is registered and reads the list files of a paper's authors."""
    try:
        return bool(registry.registry().get(ProtocolSpec, protocol).lists)
    except FssbenchError:
        return False


def group_ranks(ordered: Sequence[T], differ: Callable[[T, T], bool]) -> list[int]:
    """Return shared ranks of methods that cannot be told apart from the best one of their group.

    Walking down from the best, each method is compared with the first one of the current group
    only, and either joins the group or starts the next one. Thus small steps cannot make one group
    of a long list; the last method of a group may differ from other members, and may not differ
    from the first method of the next group.

    Args:
        ordered: methods, best first.
        differ: function of the first method of a group and of one further down.

    Returns:
        For each method, 1 + the number of methods in better groups.
    """
    ranks: list[int] = []
    first = 0
    for index, method in enumerate(ordered):
        if index != first and differ(ordered[first], method):
            first = index
        ranks.append(first + 1)
    return ranks


@attrs.frozen(kw_only=True)
class _Draft:
    """A table without its intervals and ranks.

    Attributes:
        qualifier: as of `Table`.
        methods: results by fold of each row.
        notes: reasons why each row has no rank, except missing folds.
        averaged: as of `Table`.
    """

    qualifier: str
    methods: Sequence[Method]
    notes: Sequence[Sequence[str]]
    averaged: Sequence[int]

    @property
    def complete(self) -> list[list[Result]]:
        """Results of the averaged folds of each row; none for a row that lacks one."""
        return [
            [method[fold] for fold in self.averaged] if method.keys() >= {*self.averaged} else []
            for method in self.methods
        ]

    @property
    def ranked(self) -> int:
        """Number of rows that will have a rank."""
        return sum(
            bool(folds and not notes)
            for folds, notes in zip(self.complete, self.notes, strict=True)
        )


def _drafts(results: Sequence[Result]) -> list[_Draft]:
    """Return tables by protocol, shots and seed; in each setting, the most ranked rows first.

    Replays of published protocols are last.
    """
    settings = _grouped(((r.record.protocol, r.record.shots, r.record.seed), r) for r in results)
    drafts: list[_Draft] = []
    for _, members in sorted(settings.items(), key=lambda item: (is_replay(item[0][0]), item[0])):
        by_data = _grouped((r.record.dataset.fingerprint, r) for r in members)
        alike = []
        for fingerprint, same_data in sorted(by_data.items()):
            data = [f"annotations {fingerprint[:8]}"] if len(by_data) > 1 else []
            parts = _same_episodes(same_data)
            for number, methods in enumerate(parts, start=1):
                part = [f"episode set {number} of {len(parts)}"] if len(parts) > 1 else []
                alike.append(_draft(methods, ", ".join(data + part)))
        drafts += sorted(alike, key=lambda t: (-t.ranked, -len(t.methods), t.qualifier))
    return drafts


def _draft(methods: Sequence[Method], qualifier: str) -> _Draft:
    notes = [_reasons(method) for method in methods]
    may_rank = [method for method, why in zip(methods, notes, strict=True) if not why]
    averaged = sorted({fold for method in may_rank or methods for fold in method})
    return _Draft(qualifier=qualifier, methods=methods, notes=notes, averaged=averaged)


def _same_episodes(results: Sequence[Result]) -> list[list[Method]]:
    """Split methods into parts, in which all complete manifests of a fold and images are equal.

    Methods of many folds are first, so that those of few folds join them. Records of older versions
    do not name the content of their images; they join the first part with their manifests.
    """
    grouped = _grouped((method_id(r.record), r) for r in results)
    methods = [{r.record.fold: r for r in members} for _, members in sorted(grouped.items())]
    parts: list[tuple[dict[int, tuple[str, str]], list[Method]]] = []
    for method in sorted(methods, key=_many_folds_first):
        digests = _digests(method)
        for known, members in parts:
            if all(_alike(known.get(fold, own), own) for fold, own in digests.items()):
                known.update({f: own for f, own in digests.items() if f not in known or own[1]})
                members.append(method)
                break
        else:
            parts.append((digests, [method]))
    return [members for _, members in parts]


def _digests(method: Method) -> dict[int, tuple[str, str]]:
    """Return digests of manifest and images by fold, without cut manifests, which never rank."""
    records = {fold: result.record for fold, result in method.items()}
    return {
        fold: (record.manifest.digest, record.dataset.images)
        for fold, record in records.items()
        if record.manifest.limit is None
    }


def _alike(first: tuple[str, str], second: tuple[str, str]) -> bool:
    return first[0] == second[0] and (first[1] == second[1] or not first[1] or not second[1])


def _many_folds_first(method: Method) -> tuple[Any, ...]:
    record = _any(method)
    names = record.matcher, record.backbone, method_id(record)
    images = [images for _, images in _digests(method).values()]
    return not images, -len(method), sorted(method), not all(images), names


def _table(
    draft: _Draft, intervals: Sequence[tuple[float, float] | None], calculation: Calculation
) -> Table:
    methods = draft.methods
    first, labels = _any(methods[0]), Labels(map(_any, methods))
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


def _row(draft: _Draft, index: int, labels: Labels, interval: tuple[float, float] | None) -> Row:
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


def _reasons(method: Method) -> list[str]:
    """Return the reasons why a method must not rank, whatever the folds of other methods."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for fold in sorted(method):
        reason = method[fold].record.rankable or _trained_on_novel(method[fold].record)
        if reason:
            reasons[reason].append(fold)
    changed = _changed_code([result.record for result in method.values()])
    if changed:
        reasons[f"folds of different code of {', '.join(changed)}"] += sorted(method)
    always = [REPLAY] * is_replay(_any(method).protocol)
    always += [MIXED] * (HARMONIC in _any(method).scores)
    return always + [
        reason if len(folds) == len(method) else f"fold {', '.join(map(str, folds))}: {reason}"
        for reason, folds in reasons.items()
    ]


def _changed_code(records: Sequence[Record]) -> list[str]:
    """Return the packages, except fssbench itself, whose code differs between folds."""
    known: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, code in record.code.items():
            known[name].add("" if name == "fssbench" else code.sha256)
    return sorted(name for name, hashes in known.items() if len(hashes) > 1)


def _trained_on_novel(record: Record) -> str:
    fold = record.trained_fold
    if fold in (None, record.fold):
        return ""
    return f"checkpoint trained for fold {fold}, which has these classes in training"


def _episodes(methods: Sequence[Method]) -> dict[int, Episodes]:
    found: dict[int, Episodes] = {}
    for method in methods:
        for fold, (digest, content) in _digests(method).items():
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


def _any(method: Method) -> Record:
    return method[min(method)].record


def _grouped(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
