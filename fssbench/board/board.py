"""From run directories to boards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fssbench.board.archive import RESULTS, store
from fssbench.board.markdown import render
from fssbench.board.tables import make_boards
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.privacy import private_problems
from fssbench.results.record import RECORD_FILE
from fssbench.results.result import find_results, read_result
from fssbench.results.verify import problems

NOTE_FILE = "NOTE.txt"
"""In ``results/DATASET/``: plain text that stands at the head of the dataset's page."""


def build_boards(runs: Sequence[Path], out: Path) -> list[Path]:
    """Add runs to the results below `out`, and write one markdown page for each dataset.

    The pages follow from all results there, old and new; without runs they are written anew.

    Args:
        runs: run directories, or folders that hold some.
        out: where the pages and ``results/`` lie.

    Returns:
        The pages, in the order of their names.

    Raises:
        FssbenchError: a result, new or old, does not verify or holds what is private (the first of
            its problems is told); nothing was added then. Or two results claim the same cell with
            other episodes or weights.
    """
    folders = find_results(runs)
    for folder in sorted({*folders, *stored_results(out)}):
        found = problems(folder) or private_problems(folder)
        if found:
            more = f" (and {len(found) - 1} more problems)" if found[1:] else ""
            raise FssbenchError(f"{found[0]}{more}")
    for folder in folders:
        store(read_result(folder), out)
    pages = render_boards(out)
    for name, text in pages.items():
        write_atomically(out / name, text.encode())
    return [out / name for name in pages]


def render_boards(out: Path) -> dict[str, str]:
    """The pages that follow from the results below `out`: file name to text."""
    boards = make_boards([read_result(folder) for folder in stored_results(out)])
    return {
        f"{_folder(board.dataset)}.md": render(board, note_of(out, board.dataset))
        for board in boards
    }


def note_of(out: Path, dataset: str) -> str:
    """What whoever keeps the boards wants readers of a page to know first; "" for nothing."""
    path = out / RESULTS / _folder(dataset) / NOTE_FILE
    try:
        return path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise FssbenchError(f"{path}: cannot read this note: {error}") from error


def stored_results(out: Path) -> list[Path]:
    """The folders of all results below `out`, sorted."""
    return sorted({file.parent for file in (out / RESULTS).rglob(RECORD_FILE)})


def _folder(dataset: str) -> str:
    return dataset.replace("/", "-")
