"""Does a board follow from its records, and do the records follow from their rows?"""

from __future__ import annotations

from pathlib import Path

from fssbench.board.archive import RESULTS, cell
from fssbench.board.board import render_boards
from fssbench.errors import FssbenchError
from fssbench.results.privacy import private_problems
from fssbench.results.result import FILES, read_result
from fssbench.results.verify import problems

_REBUILD = "build the board again"


def check_boards(out: Path) -> list[str]:
    """Everything that is wrong with the boards in a folder, one line each; empty when all is right.

    Each result's rows must be its manifest's episodes in order, its scores what the rows give; it
    must hold no secret, name or path of a machine, and lie where `fssbench.board.archive.cell`
    says. The pages must be, byte for byte, what the
    results render to, and no page may be missing or left over; ``README.md`` is nobody's.

    Args:
        out: where the pages and ``results/`` lie.

    Raises:
        FssbenchError: there is no such folder, or no result in it.
    """
    if not out.is_dir():
        raise FssbenchError(f"{out}: no such folder; name what `fssbench board build` wrote")
    folders = _result_folders(out)
    if not folders:
        raise FssbenchError(f"{out}: no results below it; name what `fssbench board build` wrote")
    found = []
    for folder in folders:
        wrong = problems(folder) or private_problems(folder)
        if not wrong and folder != out / cell(read_result(folder).record):
            right = cell(read_result(folder).record)
            wrong = [f"{folder}: this result belongs in {right}; move it there"]
        found += wrong
    # Pages made from broken results would only say the same again, or nothing.
    return found or _pages(out)


def _result_folders(out: Path) -> list[Path]:
    """Folders with any of a result's files, so that one without its record is found too."""
    return sorted({file.parent for name in FILES for file in (out / RESULTS).rglob(name)})


def _pages(out: Path) -> list[str]:
    pages = render_boards(out)
    there = {path.name for path in out.glob("*.md")} - {"README.md"}
    found = [f"{out / name}: missing; {_REBUILD}" for name in sorted(pages.keys() - there)]
    found += [
        f"{out / name}: no result is behind this page; delete it"
        for name in sorted(there - pages.keys())
    ]
    for name in sorted(pages.keys() & there):
        line = _first_difference((out / name).read_bytes(), pages[name].encode())
        if line:
            found.append(f"{out / name}: line {line} does not follow from the results; {_REBUILD}")
    return found


def _first_difference(said: bytes, true: bytes) -> int:
    """Number of the first line that differs, 0 when none does."""
    if said == true:
        return 0
    said_lines, true_lines = said.split(b"\n"), true.split(b"\n")
    for number, (one, other) in enumerate(zip(said_lines, true_lines, strict=False), start=1):
        if one != other:
            return number
    return min(len(said_lines), len(true_lines)) + 1
