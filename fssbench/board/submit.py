"""Submitting: runs of one's own become results of a public board."""

from __future__ import annotations

import contextlib
import getpass
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from fssbench.board.archive import cell
from fssbench.board.board import build_boards
from fssbench.board.replays import REASON, is_replay
from fssbench.errors import FssbenchError
from fssbench.results.privacy import private_problems
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE
from fssbench.results.result import FILES, Result, find_results, read_result
from fssbench.results.verify import known_folds, problems


@attrs.frozen(kw_only=True)
class Submission:
    """What a submission did.

    Attributes:
        added: folders of new results.
        there: folders of results that were there already, the same in every byte.
        pages: the pages, built anew.
        notes: why a row will have no rank, or what else its submitter may want to mend.
    """

    added: tuple[Path, ...]
    there: tuple[Path, ...]
    pages: tuple[Path, ...]
    notes: tuple[str, ...]


def submit(runs: Sequence[Path], board: Path) -> Submission:
    """Verify finished runs, copy record, rows and manifest of each, and build the boards anew.

    Submitting once more what is there changes nothing.

    Args:
        runs: run directories, or folders that hold some.
        board: folder of the boards.

    Raises:
        FssbenchError: a run is not finished or was cut short; a result does not verify or holds
            what is private; or another result has its place. Nothing was copied then.
    """
    for started in _unfinished(runs):
        raise FssbenchError(
            f"{started}: this run is not finished; run its `fssbench evaluate` again, it goes on"
        )
    results = [_checked(folder) for folder in find_results(runs)]
    added: list[Path] = []
    there: list[Path] = []
    places: dict[Path, Path] = {}
    for result in results:
        target = board / cell(result.record)
        if target in places:
            raise FssbenchError(
                f"{result.folder}: {places[target]} is the same method and setting; submit one"
            )
        places[target] = result.folder
        (there if _is_there(result, target) else added).append(target)
    pages = build_boards([result.folder for result in results], board)
    return Submission(
        added=tuple(added),
        there=tuple(there),
        pages=tuple(pages),
        notes=(*_notes(results), *_missing_folds([*added, *there])),
    )


def _unfinished(runs: Sequence[Path]) -> list[Path]:
    started = {file.parent for path in runs for file in path.rglob(MANIFEST_FILE)}
    return sorted(folder for folder in started if not (folder / RECORD_FILE).exists())


def _checked(folder: Path) -> Result:
    # Intervals take long, and are verified before anything is copied.
    for problem in problems(folder, intervals=False) or private_problems(folder, _own_names()):
        raise FssbenchError(problem)
    result = read_result(folder)
    info = result.record.manifest
    if info.limit is not None:
        raise FssbenchError(
            f"{folder / RECORD_FILE}: only the first {info.episodes} episodes were measured; "
            "evaluate without --limit"
        )
    return result


def _own_names() -> list[str]:
    """What this user and this machine are called, which a record made elsewhere may well hold."""
    names = [socket.gethostname(), socket.gethostname().partition(".")[0]]
    with contextlib.suppress(KeyError, OSError):  # an account without a name, as containers have
        names.append(getpass.getuser())
    return names


def _is_there(result: Result, target: Path) -> bool:
    if not (target / RECORD_FILE).exists():
        return False
    if all(_bytes(target / name) == _bytes(result.folder / name) for name in FILES):
        return True
    raise FssbenchError(
        f"{result.folder}: {target} is another result of this method and setting; to correct it, "
        "delete that folder first and say why in the pull request"
    )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _notes(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        record = result.record
        reason = record.rankable or (REASON if is_replay(record.protocol) else "")
        if reason:
            yield f"{result.folder}: {reason}: its row has no rank"
        if record.environment.get("dirty"):
            yield (
                f"{result.folder}: measured with uncommitted changes of fssbench; a reviewer may "
                "ask for a clean run"
            )


def _missing_folds(places: Sequence[Path]) -> Iterator[str]:
    """Methods that lack a fold of their dataset; `places` are folders of results on the board."""
    settings = {(place.parent, place.name.partition("-")[2]): place for place in places}
    for (method, setting), place in sorted(settings.items()):
        folds = known_folds(read_result(place).record.dataset.name) or 0
        names = [f"fold{fold}-{setting}" for fold in range(folds)]
        missing = [name for name in names if not (method / name / RECORD_FILE).exists()]
        if missing:
            yield f"{method}: {', '.join(missing)} missing: a row that lacks folds has no rank"
