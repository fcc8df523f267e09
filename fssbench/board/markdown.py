"""Boards as markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fssbench.board.published import PublishedRow, Source
from fssbench.board.tables import Board, Row, Table
from fssbench.board.text import NONE, count, milliseconds, one_line, score

_MEASURED = ("95 % CI", "FB-IoU", "Learnable", "ms / episode")

_HEAD = """\
# {dataset}
{note}
Few-shot semantic segmentation on {dataset}. This page follows from the records in
[results/{folder}](results/{folder}), whose scores follow from their rows; do not edit it.

* A table holds one protocol and one number of shots, and its ranked rows answered exactly the same
  episodes. They stand by the mean over the folds and rank in groups: from the best row down, a row
  joins the group when the 95 % interval of its paired difference to the group's first row includes
  zero, and starts the next group when not. A row without a rank (—) says why.
* Folds and mean are class mIoU in percent: intersections and unions are added up per class,
  divided, and averaged over the fold's classes. The 95 % CI is of the mean, by bootstrap over query
  images. Paired differences are known better than that, because the same episodes are hard for
  every method: compare two rows by their records.
* Learnable parameters are the method's, without the frozen backbone. Time is wall time per episode
  on the hardware that the record names; compare it only on equal hardware.

Add your runs, compare two rows, and check every number of this page, without images and without a
GPU:

```console
$ fssbench board build RUNS --out DIR
$ fssbench board compare RECORD RECORD
$ fssbench board check DIR
```
"""

_REPLAYS = """\
## Replays of published protocols

Measured here, on episodes that are drawn and scored as a paper's own code does, from list files
that whoever ran it pointed to. They are for comparing with that paper's numbers: **they have no
rank**, and are not comparable with the tables above.
"""

_PUBLISHED = """\
## Published numbers

As printed in papers, by other code, under **other protocols**: image lists, samplers, episode
counts, evaluation sizes and training data differ from the tables above and among the papers
themselves. They are for orientation, **cannot be compared with measured rows, and have no rank**.

A row is exactly what each of its sources prints, sorted by the printed mean; an empty cell was not
printed. *Own result*: a source is the method's own paper. *Row reconstructed*: the cells of the
table were displaced in the text that it was read from.
"""


def render(board: Board, note: str = "") -> str:
    """A board as a markdown page, ending with a newline. The same board gives the same text.

    Args:
        board: what to show.
        note: plain text to show first, in a quotation; its paragraphs are parted by empty lines.
    """
    dataset = escape(board.dataset)
    folder = board.dataset.replace("/", "-")
    head = _HEAD.format(dataset=dataset, folder=folder, note=_quoted(note))
    replays = [table for table in board.tables if table.replay]
    parts = [head, *(_measured(table) for table in board.tables if not table.replay)]
    parts += [_REPLAYS, *map(_measured, replays)] if replays else []
    if board.published:
        parts.append(_PUBLISHED)
        parts += [_published(shots, rows) for shots, rows in board.published.items()]
        parts.append(_sources(board))
    return "\n".join(parts)


def escape(text: str) -> str:
    """Text of a stranger as one short line that markdown shows as it is."""
    # No mark-up starts without one of these; an escaped colon keeps an address from being a link.
    return re.sub(r"([\\`*_\[\]<>|~$&@]|:(?=//))", r"\\\1", one_line(text))


def _quoted(note: str) -> str:
    """Plain text as a markdown quotation between empty lines; an empty text is an empty line."""
    lines = [" ".join(escape(word) for word in line.split()) for line in note.strip().splitlines()]
    return "\n" + "".join(f"> {line}".rstrip() + "\n" for line in lines) if lines else ""


def _measured(table: Table) -> str:
    setting = f"{escape(table.protocol)}, {table.shots}-shot"
    setting += f", seed {table.seed}" if table.seed else ""
    qualifier = f", {escape(table.qualifier)}" if table.qualifier else ""
    lines = [f"{'###' if table.replay else '##'} {setting}{qualifier}", ""]
    lines += [*_facts(table), ""]
    folds = [f"Fold {fold}" for fold in table.folds]
    of = "" if table.averaged == table.folds else f" of {', '.join(map(str, table.averaged))}"
    scores = [*folds, f"Mean{of}"] if len(folds) > 1 else [f"mIoU, {folds[0].lower()}"]
    noted = any(row.notes for row in table.rows)
    note = ["Note"] if noted else []
    header = ["Rank", "Method", "Backbone", *scores, *_MEASURED, *note, "Records"]
    left = {"Method", "Backbone", "Records", "Note"}
    body = [_cells(row, table.folds, noted) for row in table.rows]
    trained = [_trained(row) for row in table.rows if row.checkpoints]
    return "\n".join([*lines, *_grid(header, body, left), *(["", *trained] if trained else []), ""])


def _trained(row: Row) -> str:
    """Which checkpoints a row is of, as a list item."""
    facts = ", ".join(map(escape, row.training))
    how = f" was trained with {facts};" if facts else ":"
    hashes = ", ".join(f"fold {fold} {_code(sha)}" for fold, sha in row.checkpoints.items())
    return f"* {escape(row.method)} on {escape(row.backbone)}{how} checkpoints {hashes}."


def _cells(row: Row, folds: Sequence[int], noted: bool) -> list[str]:
    mean = [score(row.mean)] if len(folds) > 1 else []
    if row.rank == 1 and mean:
        mean = [f"**{mean[0]}**"]
    low_high = f"{row.interval[0]:.1f} to {row.interval[1]:.1f}" if row.interval else NONE
    return [
        NONE if row.rank is None else str(row.rank),
        escape(row.method),
        escape(row.backbone),
        *(score(row.folds.get(fold)) for fold in folds),
        *mean,
        low_high,
        score(row.fb_iou),
        count(row.parameters),
        milliseconds(row.seconds),
        *(["; ".join(map(escape, row.notes))] if noted else []),
        " ".join(f"[{fold}]({link})" for fold, link in row.records.items()),
    ]


def _facts(table: Table) -> Iterator[str]:
    """Which protocol, which data, which episodes, as a list."""
    yield (
        f"* Data: split {escape(table.split)}, annotations {_code(table.fingerprint)}; scored at "
        f"{escape(table.score_size)} size."
    )
    manifests = [
        f"fold {fold} {_code(episodes.digest)} ({episodes.count} episodes, "
        f"{episodes.images} query images)"
        for fold, episodes in table.episodes.items()
    ]
    yield f"* Manifests, seed {table.seed}: {', '.join(manifests) or 'none is complete'}."
    dropped = [
        f"fold {fold} {', '.join(map(escape, episodes.dropped))}"
        for fold, episodes in table.episodes.items()
        if episodes.dropped
    ]
    if dropped:
        yield f"* Classes left out for want of images: {'; '.join(dropped)}."


def _published(shots: int, rows: Sequence[PublishedRow]) -> str:
    folds = any(any(row.folds) for row in rows)
    noted = any(row.note for row in rows)
    scores = ["Fold 0", "Fold 1", "Fold 2", "Fold 3", "Mean"] if folds else ["mIoU"]
    last = ["FB-IoU", "Printed in", *(["Note"] if noted else [])]
    header = ["Method", "Backbone", *scores, *last]
    body = [
        [
            escape(row.method) + (f" ({escape(row.venue_year)})" if row.venue_year else ""),
            escape(row.backbone),
            *(row.folds if folds else ()),
            row.mean,
            row.fb_iou,
            "; ".join(
                f"{escape(s.paper)}, {escape(s.table.replace(';', ','))}" for s in row.sources
            ),
            *([_plain(row.note)] if noted else []),
        ]
        for row in rows
    ]
    left = {"Method", "Backbone", "Printed in", "Note"}
    return "\n".join([f"### Published, {shots}-shot", "", *_grid(header, body, left), ""])


def _plain(note: str) -> str:
    """A note of ours: whole, however long."""
    return "; ".join(
        " ".join(escape(word) for word in part.split()) for part in note.split("; ") if part
    )


def _sources(board: Board) -> str:
    titles = {
        source.paper: source
        for rows in board.published.values()
        for r in rows
        for source in r.sources
    }
    lines = [f"* {escape(name)}: {_plain(_title(titles[name]))}" for name in sorted(titles)]
    return "\n".join(["The papers:", "", *lines, ""])


def _title(source: Source) -> str:
    return source.title.removeprefix(f"{source.paper}: ")


def _grid(header: Sequence[str], body: Sequence[Sequence[str]], left: set[str]) -> list[str]:
    """A table whose columns are as wide as their widest cell, for whoever reads the source."""
    widths = [max(3, *(len(line[i]) for line in [header, *body])) for i in range(len(header))]
    lines = []
    for line in [header, *body]:
        cells = [
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    rule = [
        f":{'-' * (width + 1)}" if name in left else f"{'-' * (width + 1)}:"
        for width, name in zip(widths, header, strict=True)
    ]
    lines.insert(1, f"|{'|'.join(rule)}|")
    return lines


def _code(digest: str) -> str:
    """The first eight digits of a hash; a fingerprint may be any text, so it is no code span."""
    return f"`{digest[:8]}`" if re.fullmatch(r"[0-9A-Za-z]+", digest) else escape(digest[:8])
