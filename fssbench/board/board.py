"""Boards of run directories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fssbench.board.archive import RESULTS, flat, store, stored_results
from fssbench.board.calculation import Calculation, Progress
from fssbench.board.markdown import render
from fssbench.board.tables import make_boards
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.record import RECORD_FILE
from fssbench.results.result import find_results, read_result

NOTE_FILE = "NOTE.txt"
"""File in ``results/DATASET/``: plain text for the head of the dataset's page."""


def build_boards(runs: Sequence[Path], out: Path, progress: Progress | None = None) -> list[Path]:
    """Add runs to the results below `out`, and write a markdown page for each dataset.

    The pages are made from all results there, old and new; without runs they are written again.

    Args:
        runs: run directories, or folders of some.
        out: folder of the pages and of ``results/``.
        progress: function that is called with the finished and all items of a task.

    Returns:
        The pages, sorted by name.

    Raises:
        FssbenchError: a result, new or old, does not verify or has private data, and nothing was
            added; or two results of the same cell have other episodes or weights.
    """
    folders = find_results(runs)
    with Calculation(progress) as calculation:
        check_results(sorted({*folders, *stored_results(out)}), calculation)
    _store(folders, out, progress)
    while True:
        before = _written(out)
        with Calculation(progress) as calculation:  # stored files have changed
            pages = render_boards(out, calculation)
        for name, text in pages.items():
            write_atomically(out / name, text.encode())
        # Another process may have stored results, and written its pages before these.
        if _written(out) == before:
            return [out / name for name in pages]


def _store(folders: Sequence[Path], out: Path, progress: Progress | None) -> None:
    """Store results; their files are flushed to the disk together, where the system can do so."""
    together, written = hasattr(os, "sync"), False
    for number, folder in enumerate(folders, start=1):
        written |= store(read_result(folder), out, flush=not together)
        if progress is not None:
            progress("copying", number, len(folders))
    if together and written:
        os.sync()


def _written(out: Path) -> dict[Path, tuple[int, int]]:
    """Return the folders of all results below `out`, and facts that a new record changes."""
    found = {folder: (folder / RECORD_FILE).stat() for folder in stored_results(out)}
    return {folder: (facts.st_ino, facts.st_mtime_ns) for folder, facts in found.items()}


def check_results(folders: Sequence[Path], calculation: Calculation) -> None:
    """Raise an `FssbenchError` if a result does not verify or has private data."""
    for found in filter(None, calculation.problems(folders).values()):
        more = f" (and {len(found) - 1} more problems)" if found[1:] else ""
        raise FssbenchError(f"{found[0]}{more}")


def render_boards(out: Path, calculation: Calculation) -> dict[str, str]:
    """Return the texts of the pages of all results below `out`, by file name."""
    results = [read_result(folder) for folder in stored_results(out)]
    return {
        f"{flat(board.dataset)}.md": render(board, note_of(out, board.dataset))
        for board in make_boards(results, calculation)
    }


def note_of(out: Path, dataset: str) -> str:
    """Return the maintainers' note on a dataset's page, or ""."""
    path = out / RESULTS / flat(dataset) / NOTE_FILE
    try:
        return path.read_text() if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise FssbenchError(f"{path}: cannot read this note: {error}") from error
