"""Boards as markdown."""

from __future__ import annotations

import importlib.resources
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from string import Template

from fssbench.board.archive import flat
from fssbench.board.labels import code_label, encoder_labels, training_label
from fssbench.board.published import PublishedRow, paper_titles
from fssbench.board.tables import Board, Row, Table
from fssbench.board.text import NONE, count, milliseconds, one_line, score
from fssbench.hub import read_address
from fssbench.results.record import Record

_LEFT = {"Method", "Backbone", "Records", "Note", "Printed in"}
"""Left-aligned columns; all others are right-aligned."""
_GENERALISED = {"Base": "base_miou", "Novel": "novel_miou", "Harmonic mean": "harmonic_mean"}
_MEASURED = ("FB-IoU", "Learnable", "ms / episode")


def render(board: Board, note: str = "") -> str:
    """Return a board as a markdown page that ends with a newline.

    Args:
        board: the board.
        note: plain text to quote at the head of the page; empty lines separate its paragraphs.
    """
    dataset, folder = escape(board.dataset), flat(board.dataset)
    head = Template(_part("head.md"))
    parts = [head.substitute(dataset=dataset, folder=folder, note=_quoted(note))]
    parts += [_measured(table) for table in board.tables if not table.replay]
    replays = [table for table in board.tables if table.replay]
    parts += [_part("replays.md"), *map(_measured, replays)] if replays else []
    if board.published:
        parts.append(_part("published.md"))
        parts += [_published(shots, rows) for shots, rows in board.published.items()]
        titles = paper_titles(row for rows in board.published.values() for row in rows)
        lines = [f"* {escape(name)}: {_whole(title)}" for name, title in titles]
        parts.append("\n".join(["The papers:", "", *lines, ""]))
    return "\n".join(parts)


def escape(text: str) -> str:
    """Return an untrusted text as one short line of markdown without any mark-up."""
    # All mark-up starts with one of these; without its colon, an address is no link.
    return re.sub(r"([\\`*_\[\]<>|~$&@]|:(?=//))", r"\\\1", one_line(text))


def _quoted(note: str) -> str:
    """Return plain text as a markdown quotation between empty lines; "" without text."""
    lines = [" ".join(escape(word) for word in line.split()) for line in note.strip().splitlines()]
    return "\n" + "".join(f"> {line}".rstrip() + "\n" for line in lines) if lines else ""


def _measured(table: Table) -> str:
    record = table.record
    setting = f"{escape(record.protocol)}, {record.shots}-shot"
    setting += f", seed {record.seed}" if record.seed else ""
    qualifier = f", {escape(table.qualifier)}" if table.qualifier else ""
    lines = [f"{'###' if table.replay else '##'} {setting}{qualifier}", ""]
    lines += [*_facts(table), ""]
    several = len(table.folds) > 1
    scores = [*(f"Fold {fold}" for fold in table.folds if several), table.mean_name]
    noted = any(row.notes for row in table.rows)
    last = ["Note", "Records"] if noted else ["Records"]
    boundaries = ["J&F"] if table.has_j_and_f else []
    boundaries += [*_GENERALISED] if table.generalised else []
    header = ["Rank", "Method", "Backbone", *scores, "95 % CI", *boundaries, *_MEASURED, *last]
    lines += _grid(header, [_cells(row, table, noted) for row in table.rows])
    notes = [_trained(row) for row in table.rows if row.checkpoints]
    notes += [_encoders(row) for row in table.rows if row.records[min(row.records)].encoders]
    return "\n".join([*lines, *(["", *notes] if notes else []), ""])


def _encoders(row: Row) -> str:
    """Return the encoders of a row as a list item."""
    encoders = "; ".join(encoder_labels(row.records[min(row.records)]))
    text = " ".join(map(escape, encoders.split()))  # each word has a limited length
    return f"* {escape(row.method)} has the encoders {text}."


def _trained(row: Row) -> str:
    """Return the checkpoints of a row as a list item."""
    facts = ", ".join(map(escape, training_label(row.records[min(row.records)])))
    how = f" was trained with {facts};" if facts else ":"
    hashes = ", ".join(
        f"fold {fold} {_code(sha)}{_address(row.records[fold])}"
        for fold, sha in row.checkpoints.items()
    )
    return f"* {escape(row.method)} on {escape(row.backbone)}{how} checkpoints {hashes}."


def _address(record: Record) -> str:
    """Return the address of a record's checkpoint on the hub as code, or ""."""
    address = record.checkpoint.address if record.checkpoint else ""
    return f" `{address}`" if read_address(address) else ""


def _cells(row: Row, table: Table, noted: bool) -> list[str]:
    mean = [score(row.mean)] if len(table.folds) > 1 else []
    if row.rank == 1 and mean:
        mean = [f"**{mean[0]}**"]
    low_high = f"{row.interval[0]:.1f} to {row.interval[1]:.1f}" if row.interval else NONE
    return [
        NONE if row.rank is None else str(row.rank),
        escape(row.method),
        escape(row.backbone),
        *(score(row.folds.get(fold)) for fold in table.folds),
        *mean,
        low_high,
        *([score(row.j_and_f)] if table.has_j_and_f else []),
        *(score(row.score(n)) for n in (_GENERALISED.values() if table.generalised else ())),
        score(row.fb_iou),
        count(row.parameters),
        milliseconds(row.seconds),
        *(["; ".join(map(escape, row.notes))] if noted else []),
        " ".join(f"[{fold}]({link})" for fold, link in row.links.items()),
    ]


def _facts(table: Table) -> Iterator[str]:
    """Yield list items about data and episodes."""
    record = table.record
    data = f"split {escape(record.dataset.split)}, annotations {_code(record.dataset.fingerprint)}"
    yield f"* Data: {data}; scored at {escape(record.score_size)} size."
    manifests = [
        f"fold {fold} {_code(episodes.digest)} ({episodes.count} episodes, "
        f"{episodes.images} query images"
        f"{f', images {_code(episodes.content)}' if episodes.content else ''})"
        for fold, episodes in table.episodes.items()
    ]
    yield f"* Manifests, seed {record.seed}: {', '.join(manifests) or 'none is complete'}."
    dropped = [
        f"fold {fold} {', '.join(map(escape, episodes.dropped))}"
        for fold, episodes in table.episodes.items()
        if episodes.dropped
    ]
    codes = Counter(code_label(r) for row in table.rows for r in row.records.values())
    unknown = codes.pop("", 0)
    known = [f"{escape(code)}, {number} records" for code, number in codes.items()]
    yield f"* Code: {'; '.join([*known, *([f'unknown, {unknown} records'] if unknown else [])])}."
    if dropped:
        yield f"* Classes left out for want of images: {'; '.join(dropped)}."


def _published(shots: int, rows: Sequence[PublishedRow]) -> str:
    folds = any(any(row.folds) for row in rows)
    noted = any(row.note for row in rows)
    scores = ["Fold 0", "Fold 1", "Fold 2", "Fold 3", "Mean"] if folds else [rows[0].metric]
    note = ["Note"] if noted else []
    header = ["Method", "Backbone", *scores, "FB-IoU", "Printed in", *note]
    body = []
    for row in rows:
        printed = [*(row.folds if folds else ()), row.mean, row.fb_iou]
        papers = (f"{escape(s.paper)}, {escape(s.table.replace(';', ','))}" for s in row.sources)
        last = [_whole(row.note)] if noted else []
        who = [escape(row.label), escape(row.backbone)]
        body.append([*who, *printed, "; ".join(papers), *last])
    return "\n".join([f"### Published, {shots}-shot", "", *_grid(header, body), ""])


def _whole(text: str) -> str:
    """Return a text of the package without mark-up and, unlike `escape`, without a limit."""
    return "; ".join(
        " ".join(escape(word) for word in part.split()) for part in text.split("; ") if part
    )


def _grid(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns, so that its source is readable."""
    columns = []
    for name, *cells in zip(header, *body, strict=True):
        width = max(3, *map(len, (name, *cells)))
        left, rule = name in _LEFT, "-" * (width + 1)
        padded = [cell.ljust(width) if left else cell.rjust(width) for cell in (name, *cells)]
        columns.append([f" {padded[0]} ", f":{rule}" if left else f"{rule}:",
                        *(f" {cell} " for cell in padded[1:])])  # fmt: skip
    return [f"|{'|'.join(line)}|" for line in zip(*columns, strict=True)]


def _code(digest: str) -> str:
    """Return the first eight digits of a hash as code; a fingerprint may be any text."""
    return f"`{digest[:8]}`" if re.fullmatch(r"[0-9A-Za-z]+", digest) else escape(digest[:8])


def _part(name: str) -> str:
    return importlib.resources.files("fssbench.board").joinpath("pages", name).read_text("utf-8")
