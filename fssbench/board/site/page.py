"""All boards of a folder as one HTML page, with its style and its script inside."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import os
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from fssbench.board.board import note_of, stored_results
from fssbench.board.site.details import details
from fssbench.board.site.html import Html, join, script_json, tag
from fssbench.board.site.tables import Entry, measured, papers, published
from fssbench.board.tables import Board, Table, make_boards
from fssbench.board.text import one_line, paragraphs, score
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.record import Record
from fssbench.results.result import read_result
from fssbench.results.verify import problems

PAGE_FILE = "index.html"


def write_page(out: Path, file: Path | None = None) -> Path:
    """Write the page of the boards in a folder.

    Args:
        out: where ``results/`` lies.
        file: the page, ``index.html`` in `out` if None. Links to records are relative to it.

    Returns:
        The page.

    Raises:
        FssbenchError: no results there, or one that does not follow from its rows; or the page
            cannot be written.
    """
    file = file or out / PAGE_FILE
    if file.is_dir():
        raise FssbenchError(f"{file}: this is a folder; name a file, e.g. {file / PAGE_FILE}")
    write_atomically(file, render_page(out, file).encode())
    return file


def render_page(out: Path, file: Path) -> str:
    """The text of the page; the same results give the same text."""
    if not out.is_dir():
        raise FssbenchError(f"{out}: no such folder; name what `fssbench board build` wrote")
    folders = stored_results(out)
    if not folders:
        raise FssbenchError(f"{out}: no results below it; name what `fssbench board build` wrote")
    for folder in folders:
        for problem in problems(folder, intervals=False):
            raise FssbenchError(problem)
    boards = make_boards([read_result(folder) for folder in folders])
    return _Page(out, file).render(boards)


class _Page:
    """What is counted up while the page is written."""

    def __init__(self, out: Path, file: Path) -> None:
        self.out = out
        self.file = file
        self.details: dict[str, Any] = {}
        self.tables = 0

    def render(self, boards: list[Board]) -> str:
        sections = join([self._section(board) for board in boards], "\n")
        style, script = _part("page.css"), _part("page.js")
        return Template(_part("page.html")).substitute(
            policy=_policy(script),
            style=style,
            script=script,
            cards=join([_all_card(boards), *map(_card, boards)]),
            protocols=_options(boards),
            shots=_shots(boards),
            measured=str(sum(len(table.rows) for board in boards for table in board.tables)),
            published=str(sum(len(rows) for b in boards for rows in b.published.values())),
            sections=sections,
            data=script_json(self.details),
        )

    def _section(self, board: Board) -> Html:
        name = one_line(board.dataset)
        parts = [tag("h2", name)]
        note = paragraphs(note_of(self.out, board.dataset))
        if note:
            parts.append(tag("div", *(tag("p", text) for text in note), class_="note", role="note"))
        parts += [self._measured(board, table) for table in board.tables]
        if board.published:
            parts.append(_CAUTION)
            for shots, rows in board.published.items():
                self.tables += 1
                parts.append(published(board, shots, rows, self.tables))
            parts.append(papers(board))
        return tag("section", *parts, class_="dataset", data_dataset=board.dataset, aria_label=name)

    def _measured(self, board: Board, table: Table) -> Html:
        self.tables += 1
        entries = []
        for row in table.rows:
            records = {
                fold: Record.read(self.out / path) for fold, path in sorted(row.records.items())
            }
            entry = Entry(
                id=f"row-{len(self.details)}",
                row=row,
                records=records,
                links={fold: self._link(path) for fold, path in sorted(row.records.items())},
            )
            panels = {fold: self._panels(path) for fold, path in row.records.items()}
            self.details[entry.id] = details(row, records, panels, self._link)
            entries.append(entry)
        leader = entries[0].id if entries[0].row.rank == 1 else None
        for entry in entries:
            self.details[entry.id]["leader"] = leader
        return measured(board, table, entries, self.tables, _description(table.protocol))

    def _panels(self, record: str) -> list[str]:
        """Pictures that lie beside a record, as paths below the board."""
        folder = self.out / Path(record).parent / "panels"
        found = sorted(path.name for path in folder.glob("*.png") if path.is_file())
        return [f"{record.rpartition('/')[0]}/panels/{name}" for name in found]

    def _link(self, path: str) -> str:
        relative = os.path.relpath(self.out / path, self.file.parent)
        # A colon is quoted too: no folder's name can become the scheme of an address.
        return quote(relative.replace(os.sep, "/"))


_CAUTION = tag(
    "div",
    tag("h3", "Published numbers"),
    tag(
        "p",
        "As printed in papers, by other code, under ",
        tag("b", "other protocols"),
        ": image lists, samplers, episode counts, evaluation sizes and training data differ from "
        "the measured tables and among the papers themselves. They are for orientation, ",
        tag("b", "cannot be compared with measured rows, and have no rank"),
        ".",
    ),
    class_="note caution",
    data_kind="published",
)


def _card(board: Board) -> Html:
    """A button that shows one dataset, with the best that is ranked on its first table."""
    ranked = [(t, r) for t in board.tables if not t.replay for r in t.rows if r.rank == 1]
    methods = {(row.method, row.backbone) for table in board.tables for row in table.rows}
    if ranked:
        table, row = ranked[0]
        best = tag("span", score(row.mean), class_="best")
        of = f"{one_line(row.method.partition(' (')[0], 28)} · {table.shots}-shot"
    else:
        best, of = tag("span", "—", class_="best"), "nothing is ranked"
    return tag(
        "button",
        tag("span", one_line(board.dataset), class_="title"),
        best,
        tag("span", of, class_="of"),
        tag("span", _plural(len(methods), "method"), class_="of"),
        type="button", class_="card", aria_pressed="false", data_value=board.dataset,
    )  # fmt: skip


def _all_card(boards: list[Board]) -> Html:
    tables = sum(len(board.tables) for board in boards)
    return tag(
        "button",
        tag("span", "All datasets", class_="title"),
        tag("span", str(len(boards)), class_="best"),
        tag("span", "datasets", class_="of"),
        tag("span", _plural(tables, "table"), class_="of"),
        type="button", class_="card", aria_pressed="true", data_value="",
    )  # fmt: skip


def _plural(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _options(boards: list[Board]) -> Html:
    protocols = {(table.protocol, board.dataset) for board in boards for table in board.tables}
    return join(
        tag("option", one_line(protocol), value=protocol, data_dataset=dataset)
        for protocol, dataset in sorted(protocols)
    )


def _shots(boards: list[Board]) -> Html:
    found = {table.shots for board in boards for table in board.tables}
    found |= {shots for board in boards for shots in board.published}
    return join(
        tag("button", f"{k}", type="button", aria_pressed="false", data_value=k)
        for k in sorted(found)
    )


def _description(protocol: str) -> str:
    """The line of description of a protocol that is registered here."""
    from fssbench import registry
    from fssbench.specs import ProtocolSpec

    try:
        return registry.registry().get(ProtocolSpec, protocol).summary
    except FssbenchError:
        return ""


def _policy(script: str) -> str:
    """What a browser lets the page do: run this very script, and load nothing."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _part(name: str) -> str:
    return importlib.resources.files("fssbench.board.site").joinpath(name).read_text("utf-8")
