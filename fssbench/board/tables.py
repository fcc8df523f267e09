"""Tables as data: which results share a table, their ranks, means and intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

import attrs

from fssbench.board.archive import cell
from fssbench.board.labels import backbone_label, method_label, training_label
from fssbench.board.published import PublishedRow, published_rows
from fssbench.board.ranks import group_ranks
from fssbench.board.replays import REASON, is_replay
from fssbench.results.method import method_id
from fssbench.results.record import RECORD_FILE, Record, trained_fold
from fssbench.results.result import Result
from fssbench.statistics.compare import compare
from fssbench.statistics.intervals import score_intervals

K = TypeVar("K")
V = TypeVar("V")

# A method's results in one setting, by fold.
Method = dict[int, Result]


@attrs.frozen(kw_only=True)
class Row:
    """A method on a board; its scores are percentages.

    Attributes:
        rank: from 1, shared by a group; see `group_ranks`. None when `notes` say why not.
        method: the matcher, and what tells it from other rows.
        backbone: the encoder, and its weights where they are not the usual ones.
        folds: class mIoU by fold.
        mean: over the table's `averaged` folds; None when the row lacks one.
        interval: 95 % interval of `mean`.
        fb_iou: mean over the same folds.
        parameters: learnable ones.
        seconds: per episode, mean over the folds.
        records: link of each fold's record, relative to the board.
        training: how its checkpoints were trained; () without any or when they do not say.
        checkpoints: sha256 of each fold's.
        notes: what a reader must know.
    """

    rank: int | None
    method: str
    backbone: str
    folds: Mapping[int, float]
    mean: float | None
    interval: tuple[float, float] | None
    fb_iou: float | None
    parameters: int
    seconds: float
    records: Mapping[int, str]
    training: tuple[str, ...]
    checkpoints: Mapping[int, str]
    notes: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Episodes:
    """What all rows of a table answered on one fold: equal digests, equal episodes."""

    digest: str
    count: int
    images: int
    dropped: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Table:
    """Rows that may be compared.

    Attributes:
        protocol, shots, seed, split: the setting.
        replay: the protocol replays a published one, and no row may rank; see `is_replay`.
        fingerprint: of the annotations.
        qualifier: tells the table from others of the same setting, "" when there are none.
        episodes: by fold; a fold that was only measured in part has none.
        folds: the fold columns.
        averaged: the folds that means are of: all that a row that may rank has.
        rows: best first, those without a rank last.
    """

    protocol: str
    shots: int
    seed: int
    split: str
    score_size: str
    replay: bool
    fingerprint: str
    qualifier: str
    episodes: Mapping[int, Episodes]
    folds: tuple[int, ...]
    averaged: tuple[int, ...]
    rows: tuple[Row, ...]


@attrs.frozen(kw_only=True)
class Board:
    """A dataset's page: measured tables, and published rows by shots."""

    dataset: str
    tables: tuple[Table, ...]
    published: Mapping[int, Sequence[PublishedRow]]


def make_boards(results: Sequence[Result]) -> list[Board]:
    """One board for each dataset, in the order of the names.

    Nothing but the results decides what is on them: neither their order nor where they lie.
    """
    datasets = _grouped((r.record.dataset.name, r) for r in results)
    return [
        Board(
            dataset=dataset,
            tables=tuple(_tables(members)),
            published=published_rows(dataset),
        )
        for dataset, members in sorted(datasets.items())
    ]


def _tables(results: Sequence[Result]) -> list[Table]:
    """By protocol, shots and seed; of one setting the table with the most ranked rows first.

    Replays of published protocols come last.
    """
    settings = _grouped(((r.record.protocol, r.record.shots, r.record.seed), r) for r in results)
    tables: list[Table] = []
    for _, members in sorted(settings.items(), key=lambda item: (is_replay(item[0][0]), item[0])):
        by_data = _grouped((r.record.dataset.fingerprint, r) for r in members)
        alike = []
        for fingerprint, same_data in sorted(by_data.items()):
            data = [f"annotations {fingerprint[:8]}"] if len(by_data) > 1 else []
            parts = _same_episodes(same_data)
            for number, methods in enumerate(parts, start=1):
                part = [f"episode set {number} of {len(parts)}"] if len(parts) > 1 else []
                alike.append(_table(methods, ", ".join(data + part)))
        tables += sorted(alike, key=_most_ranked)
    return tables


def _most_ranked(table: Table) -> tuple[int, int, str]:
    ranked = sum(row.rank is not None for row in table.rows)
    return -ranked, -len(table.rows), table.qualifier


def _same_episodes(results: Sequence[Result]) -> list[list[Method]]:
    """Split methods so that in each part a fold's complete manifests are one and the same.

    Methods of many folds come first, so that those of few find their part.
    """
    methods: list[Method] = [
        {result.record.fold: result for result in members}
        for _, members in sorted(_grouped((method_id(r.record), r) for r in results).items())
    ]
    parts: list[tuple[dict[int, str], list[Method]]] = []
    for method in sorted(methods, key=lambda m: (not _digests(m), -len(m), sorted(m), _order(m))):
        digests = _digests(method)
        for known, members in parts:
            if all(known.get(fold, digest) == digest for fold, digest in digests.items()):
                known.update(digests)
                members.append(method)
                break
        else:
            parts.append((digests, [method]))
    return [members for _, members in parts]


def _digests(method: Method) -> dict[int, str]:
    """By fold; a manifest that was cut short compares with nothing, and ranks nowhere."""
    return {
        fold: result.record.manifest.digest
        for fold, result in method.items()
        if result.record.manifest.limit is None
    }


def _order(method: Method) -> tuple[str, str, str]:
    record = _any(method)
    return record.matcher, record.backbone, method_id(record)


def _table(methods: Sequence[Method], qualifier: str) -> Table:
    peers = [_any(method) for method in methods]
    reasons = [_reasons(method) for method in methods]
    may_rank = [method for method, why in zip(methods, reasons, strict=True) if not why]
    needed = {fold for method in may_rank or methods for fold in method}
    rows = [_row(method, peers, why, needed) for method, why in zip(methods, reasons, strict=True)]
    record = peers[0]
    return Table(
        protocol=record.protocol,
        shots=record.shots,
        seed=record.seed,
        split=record.dataset.split,
        score_size=record.score_size,
        replay=is_replay(record.protocol),
        fingerprint=record.dataset.fingerprint,
        qualifier=qualifier,
        episodes=_episodes(methods),
        folds=tuple(sorted({fold for method in methods for fold in method})),
        averaged=tuple(sorted(needed)),
        rows=tuple(_ranked(list(zip(rows, methods, strict=True)), sorted(needed))),
    )


def _row(method: Method, peers: Sequence[Record], why: Sequence[str], needed: set[int]) -> Row:
    folds = {fold: method[fold].record for fold in sorted(method)}
    records = list(folds.values())
    missing = sorted(needed - set(folds))
    averaged = [] if missing else sorted(needed)
    notes = [*why, *([f"fold {', '.join(map(str, missing))} missing"] if missing else [])]
    return Row(
        rank=None,
        method=method_label(records, peers),
        backbone=backbone_label(records[0], peers),
        folds={fold: record.scores["miou"] for fold, record in folds.items()},
        mean=None if missing else fmean(folds[f].scores["miou"] for f in averaged),
        interval=None if missing else score_intervals([method[f].rows() for f in averaged])["miou"],
        fb_iou=None if missing else fmean(folds[f].scores["fb_iou"] for f in averaged),
        parameters=max(record.cost.learnable_parameters for record in records),
        seconds=fmean(record.cost.seconds_per_episode for record in records),
        records={fold: f"{cell(record)}/{RECORD_FILE}" for fold, record in folds.items()},
        training=training_label(records[0]),
        checkpoints={
            fold: record.checkpoint.sha256 for fold, record in folds.items() if record.checkpoint
        },
        notes=tuple(notes),
    )


def _ranked(rows: Sequence[tuple[Row, Method]], folds: Sequence[int]) -> list[Row]:
    """Rows with their ranks, best first.

    Rows that may rank have complete manifests of equal digests on all `folds`, so that any two of
    them can be compared episode by episode.
    """
    rows = sorted(rows, key=lambda pair: _order_of_rows(pair[0]))
    may_rank = [(row, method) for row, method in rows if not row.notes]

    def differ(first: tuple[Row, Method], other: tuple[Row, Method]) -> bool:
        pairs = [(first[1][fold].rows(), other[1][fold].rows()) for fold in folds]
        return compare(pairs).scores["miou"].significant

    ranks = group_ranks(may_rank, differ)
    ranked = [attrs.evolve(row, rank=rank) for (row, _), rank in zip(may_rank, ranks, strict=True)]
    return ranked + [row for row, _ in rows if row.notes]


def _order_of_rows(row: Row) -> tuple[float, str, str]:
    return -(row.mean or 0.0), row.method, row.backbone


def _reasons(method: Method) -> list[str]:
    """Why a method must not rank, whatever the others have."""
    reasons: dict[str, list[int]] = {}
    for fold in sorted(method):
        reason = method[fold].record.rankable or _trained_on_novel(method[fold].record)
        if reason:
            reasons.setdefault(reason, []).append(fold)
    replay = [REASON] if is_replay(_any(method).protocol) else []
    return replay + [
        reason if len(folds) == len(method) else f"fold {', '.join(map(str, folds))}: {reason}"
        for reason, folds in reasons.items()
    ]


def _trained_on_novel(record: Record) -> str:
    """A checkpoint of another fold of the same dataset has seen the classes that are asked for."""
    header = record.checkpoint.header if record.checkpoint else {}
    fold = trained_fold(header, record.dataset.name)
    if fold not in (None, record.fold):
        return f"checkpoint trained for fold {fold}, which has these classes in training"
    return ""


def _episodes(methods: Sequence[Method]) -> dict[int, Episodes]:
    found: dict[int, Episodes] = {}
    for method in methods:
        for fold in sorted(_digests(method).keys() - found.keys()):
            info = method[fold].record.manifest
            queries = {episode.query for episode in method[fold].manifest().episodes}
            found[fold] = Episodes(
                digest=info.digest,
                count=info.episodes,
                images=len(queries),
                dropped=info.dropped,
            )
    return dict(sorted(found.items()))


def _any(method: Method) -> Record:
    return method[min(method)].record


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
