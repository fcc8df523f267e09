"""Boards in notebooks."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from fssbench.board.tables import Board, Row, Table, make_boards
from fssbench.board.text import NONE, one_line, score
from fssbench.results.frame import html_table
from fssbench.results.result import find_results, read_result


class Boards(list[Board]):
    """A list of boards, which notebooks show as tables."""

    def _repr_html_(self) -> str:
        parts: list[str] = []
        for board in self:
            parts.append(f"<h3>{escape(board.dataset)}</h3>")
            parts += map(_measured, board.tables)
        return "\n".join(parts)


def load_boards(folder: Path | str) -> Boards:
    """Return the boards of all results below a folder, one for each dataset.

    Args:
        folder: folder of runs or of boards.

    Raises:
        FssbenchError: the folder does not exist, has no record, or a record cannot be read.
    """
    return Boards(make_boards([read_result(each) for each in find_results([Path(folder)])]))


def _measured(table: Table) -> str:
    record = table.record
    setting = f"{record.protocol}, {record.shots}-shot"
    setting += f", seed {record.seed}" if record.seed else ""
    setting += f", {one_line(table.qualifier)}" if table.qualifier else ""
    return f"<h4>{escape(setting)}</h4>\n{html_table([dict(_cells(r, table)) for r in table.rows])}"


def _cells(row: Row, table: Table) -> Iterator[tuple[str, str]]:
    yield "Rank", NONE if row.rank is None else str(row.rank)
    yield "Method", one_line(row.method)
    yield "Backbone", one_line(row.backbone)
    folds = [(f"Fold {fold}", row.folds.get(fold)) for fold in table.folds]
    several = len(folds) > 1
    for name, value in folds if several else [(table.mean_name, folds[0][1])]:
        yield name, score(value)
    if several:
        yield table.mean_name, score(row.mean)
    low_high = f"{row.interval[0]:.1f} to {row.interval[1]:.1f}" if row.interval else NONE
    yield "95 % CI", low_high
    yield "FB-IoU", score(row.fb_iou)
    if any(each.notes for each in table.rows):
        yield "Note", "; ".join(map(one_line, row.notes))
