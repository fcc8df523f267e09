"""Folders of boards as datasets on the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fssbench import hub
from fssbench.board.archive import RESULTS, stored_results
from fssbench.board.board import NOTE_FILE
from fssbench.board.calculation import Progress
from fssbench.board.check import check_boards
from fssbench.errors import FssbenchError
from fssbench.files import cannot_write
from fssbench.results.privacy import own_names, private_problems
from fssbench.results.result import FILES

_CARD = "README.md"
_NAMES = (*FILES, NOTE_FILE)
_OWN = re.compile(
    rf"{RESULTS}/(?:[^/]+/)+(?:{'|'.join(map(re.escape, _NAMES))})|(?!{re.escape(_CARD)})[^/]+\.md"
)
"""Names of the files of boards, which an upload replaces and a download writes."""


def push_boards(folder: Path, to: str, progress: Progress | None = None) -> hub.Address:
    """Upload the results and pages of a folder, and return the address with the commit.

    Results and pages of an earlier upload that the folder does not have are deleted on the hub.

    Args:
        folder: folder of the boards.
        to: repository, ``hf://datasets/USER/NAME``, created if there is none.
        progress: function that is called with the finished and all items of a task.

    Raises:
        FssbenchError: the boards do not pass their check or hold private data, or the upload
            failed. Nothing is uploaded then.
    """
    address = hub.parse_address(to, "hf://datasets/USER/NAME")
    found = check_boards(folder, progress)
    for result in stored_results(folder):
        found += private_problems(result, own_names())
    if found:
        more = f" (and {len(found) - 1} more problems)" if found[1:] else ""
        raise FssbenchError(f"{found[0]}{more}")
    files: dict[str, bytes | Path] = {
        name: path
        for path in folder.rglob("*")
        if path.is_file() and _OWN.fullmatch(name := path.relative_to(folder).as_posix())
    }
    card = folder / _CARD
    files[_CARD] = card if card.is_file() else _card(files).encode()
    return hub.upload(address, files, mirror=_OWN)


def pull_boards(given: str, folder: Path, progress: Progress | None = None) -> list[str]:
    """Download results and pages to a new folder, and return the problems of their check.

    Args:
        given: address ``hf://datasets/USER/NAME@REVISION``.
        folder: folder to write, which must be empty or missing.
        progress: function that is called with the finished and all items of a task.

    Raises:
        FssbenchError: the download failed, the folder has files, or there is no result.
    """
    address = hub.parse_address(given, "hf://datasets/USER/NAME@REVISION")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FssbenchError(f"--to {folder}: not empty; name a new folder")
    try:
        source = hub.fetch_folder(address, [f"{RESULTS}/*", "*.md"])
    except FssbenchError as error:
        raise FssbenchError(f"{given}: {error}") from error
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    wanted = [name for name in names if name == _CARD or _OWN.fullmatch(name)]
    if not any(name.startswith(f"{RESULTS}/") for name in wanted):
        raise FssbenchError(f"{given}: no results of fssbench in this repository")
    try:
        for name in wanted:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return check_boards(folder, progress)


def _card(files: dict[str, bytes | Path]) -> str:
    """Return the card of a data set whose folder has no ``README.md``."""
    pages = "\n".join(f"* [{name}]({name})" for name in sorted(files) if "/" not in name)
    return (
        "---\ntags:\n- few-shot-segmentation\n- fssbench\n---\n\n# Leaderboards\n\n"
        f"Results of few-shot semantic segmentation, made with fssbench:\n\n{pages}\n\n"
        "`fssbench board pull hf://datasets/USER/NAME --to FOLDER` downloads and checks them.\n"
    )
