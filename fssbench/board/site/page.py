"""All boards of a folder as one HTML page that includes its style and script."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import itertools
import os
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from fssbench import registry
from fssbench.board.archive import stored_results
from fssbench.board.board import check_results, note_of
from fssbench.board.calculation import Calculation, Progress
from fssbench.board.site.details import details
from fssbench.board.site.html import Html, join, script_json, tag
from fssbench.board.site.tables import Entry, measured, papers, published
from fssbench.board.tables import Board, Table, make_boards
from fssbench.board.text import NONE, one_line, paragraphs, score
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.result import read_result
from fssbench.specs import ProtocolSpec

PAGE_FILE = "index.html"


def write_page(out: Path, file: Path | None = None, progress: Progress | None = None) -> Path:
    """Write the page of the boards in a folder.

    Args:
        out: folder of ``results/``.
        file: the page, ``index.html`` in `out` if None. Links to records are relative to it.
        progress: function that is called with the finished and all items of a task.

    Returns:
        The page.

    Raises:
        FssbenchError: there are no results, or one does not verify or has private data; or the
            page cannot be written.
    """
    file = file or out / PAGE_FILE
    if file.is_dir():
        raise FssbenchError(f"{file}: this is a folder; name a file, e.g. {file / PAGE_FILE}")
    folders = stored_results(out)
    if not folders:
        problem = "no results below it" if out.is_dir() else "no such folder"
        raise FssbenchError(f"{out}: {problem}; name the folder of `fssbench board build`")
    with Calculation(progress) as calculation:
        check_results(folders, calculation)
        boards = make_boards([read_result(folder) for folder in folders], calculation)
    write_atomically(file, _Page(out, file).render(boards).encode())
    return file


class _Page:
    """A page with the details of its rows, and its number of tables so far."""

    def __init__(self, out: Path, file: Path) -> None:
        self._out = out
        self._file = file
        self._details: dict[str, Any] = {}
        self._tables = itertools.count(1)

    def render(self, boards: list[Board]) -> str:
        """Return the text of the page."""
        script = _part("page.js")
        tables = [(table, board.dataset) for board in boards for table in board.tables]
        printed = [row for board in boards for rows in board.published.values() for row in rows]
        protocols = sorted({(table.record.protocol, dataset) for table, dataset in tables})
        count = _plural(len(tables), "table")
        everything = _button("All datasets", f"{len(boards)}", "datasets", count, value="")
        shots = {table.record.shots for table, _ in tables} | {row.shots for row in printed}
        return Template(_part("page.html")).substitute(
            policy=_policy(script),
            style=_part("page.css"),
            script=script,
            cards=join([everything, *map(_card, boards)]),
            protocols=join(
                tag("option", one_line(protocol), value=protocol, data_dataset=dataset)
                for protocol, dataset in protocols
            ),
            shots=join(
                tag("button", f"{k}", type="button", aria_pressed="false", data_value=k)
                for k in sorted(shots)
            ),
            measured=str(sum(len(table.rows) for table, _ in tables)),
            published=str(len(printed)),
            # The sections come first, because they collect the details.
            sections=join([self._section(board) for board in boards], "\n"),
            data=script_json(self._details),
        )

    def _section(self, board: Board) -> Html:
        name = one_line(board.dataset)
        parts = [tag("h2", name)]
        if note := paragraphs(note_of(self._out, board.dataset)):
            parts.append(tag("div", *(tag("p", text) for text in note), class_="note", role="note"))
        parts += [self._measured(board, table) for table in board.tables]
        if board.published:
            printed = board.published.items()
            tables = [published(board, k, rows, next(self._tables)) for k, rows in printed]
            parts += [Html(_part("caution.html").strip()), *tables, papers(board)]
        return tag("section", *parts, class_="dataset", data_dataset=board.dataset, aria_label=name)

    def _measured(self, board: Board, table: Table) -> Html:
        entries = []
        leader = f"row-{len(self._details)}" if table.rows[0].rank == 1 else None
        for row in table.rows:
            links = {fold: self._link(path) for fold, path in row.links.items()}
            entry = Entry(id=f"row-{len(self._details)}", row=row, links=links)
            panels = {fold: self._panels(path) for fold, path in row.links.items()}
            self._details[entry.id] = {**details(row, panels, self._link), "leader": leader}
            entries.append(entry)
        summary = _summary(table.record.protocol)
        return measured(board, table, entries, next(self._tables), summary)

    def _panels(self, record: str) -> list[str]:
        """Return the pictures beside a record, as paths below the board."""
        folder = Path(record).parent / "panels"
        found = sorted(path.name for path in (self._out / folder).glob("*.png") if path.is_file())
        return [f"{folder.as_posix()}/{name}" for name in found]

    def _link(self, path: str) -> str:
        relative = os.path.relpath(self._out / path, self._file.parent)
        # A colon is quoted too, so that no folder's name is the scheme of an address.
        return quote(relative.replace(os.sep, "/"))


def _card(board: Board) -> Html:
    """Return a button that shows a dataset, with the best row of its first ranked table."""
    ranked = [(t, r) for t in board.tables if not t.replay for r in t.rows if r.rank == 1]
    methods = {(row.method, row.backbone) for table in board.tables for row in table.rows}
    best, of = NONE, "nothing is ranked"
    if ranked:
        table, row = ranked[0]
        best = score(row.mean)
        of = f"{one_line(row.method.partition(' (')[0], 28)} · {table.record.shots}-shot"
    number = _plural(len(methods), "method")
    return _button(one_line(board.dataset), best, of, number, value=board.dataset)


def _button(title: str, best: str, *more: str, value: str) -> Html:
    lines = [(title, "title"), (best, "best"), *((text, "of") for text in more)]
    return tag(
        "button", *(tag("span", text, class_=kind) for text, kind in lines), type="button",
        class_="card", aria_pressed="false" if value else "true", data_value=value,
    )  # fmt: skip


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _summary(protocol: str) -> str:
    """Return the summary of a protocol, or "" if it is not registered."""
    try:
        return registry.registry().get(ProtocolSpec, protocol).summary
    except FssbenchError:
        return ""


def _policy(script: str) -> str:
    """Return a content security policy that allows this script only and no loading."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _part(name: str) -> str:
    return importlib.resources.files("fssbench.board.site").joinpath(name).read_text("utf-8")
