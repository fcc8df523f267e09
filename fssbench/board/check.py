"""Check of boards against their records, and of records against their rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

from fssbench.board.archive import RESULTS, cell
from fssbench.board.board import render_boards
from fssbench.board.calculation import Calculation, Progress
from fssbench.errors import FssbenchError
from fssbench.results.result import FILES, read_result

_REBUILD = "build the board again"


def check_boards(out: Path, progress: Progress | None = None) -> list[str]:
    """Return all problems of the boards in a folder, one line each.

    Each result must verify, have no private data, and be in the folder that
    `fssbench.board.archive.cell` defines. The pages must be equal to those rendered from the
    results, byte for byte; no page may be missing or superfluous. ``README.md`` is not checked.

    Args:
        out: folder of the pages and of ``results/``.
        progress: function that is called with the finished and all items of a task.

    Raises:
        FssbenchError: there is no such folder, or no result in it.
    """
    # Folders with any file of a result, so that one without a record is found too.
    folders = sorted({file.parent for name in FILES for file in (out / RESULTS).rglob(name)})
    if not folders:
        problem = "no results below it" if out.is_dir() else "no such folder"
        raise FssbenchError(f"{out}: {problem}; name the folder of `fssbench board build`")
    with Calculation(progress) as calculation:
        found = []
        for folder, wrong in calculation.problems(folders).items():
            if not wrong and folder != out / (right := cell(read_result(folder).record)):
                wrong = [f"{folder}: this result belongs in {right}; move it there"]
            found += wrong
        # Pages of broken results have the same problems again.
        return found or _pages(out, render_boards(out, calculation))


def _pages(out: Path, pages: Mapping[str, str]) -> list[str]:
    there = {path.name for path in out.glob("*.md")} - {"README.md"}
    found = [f"{out / name}: missing; {_REBUILD}" for name in sorted(pages.keys() - there)]
    found += [
        f"{out / name}: page without results; delete it" for name in sorted(there - pages.keys())
    ]
    for name in sorted(pages.keys() & there):
        lines = zip_longest(
            _unix((out / name).read_bytes()).split(b"\n"), pages[name].encode().split(b"\n")
        )
        if line := next((n for n, (old, new) in enumerate(lines, start=1) if old != new), 0):
            found.append(f"{out / name}: line {line} does not follow from the results; {_REBUILD}")
    return found


def _unix(text: bytes) -> bytes:
    """Return a text with the line ends of Unix, which git may have converted."""
    return text.replace(b"\r\n", b"\n")
