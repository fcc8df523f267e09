"""Submission of runs to a public board."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from fssbench.board.archive import cell
from fssbench.board.board import build_boards
from fssbench.board.calculation import Progress
from fssbench.board.ranking import REPLAY, is_replay
from fssbench.errors import FssbenchError
from fssbench.results.privacy import own_names, private_problems
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE
from fssbench.results.result import FILES, Result, find_results, read_result
from fssbench.results.verify import known_folds, problems


@attrs.frozen(kw_only=True)
class Submission:
    """Effects of a submission.

    Attributes:
        added: folders of new results.
        there: folders of results that were there already, equal byte for byte.
        pages: the pages, built again.
        notes: reasons why rows have no rank, and other remarks for the submitter.
    """

    added: tuple[Path, ...]
    there: tuple[Path, ...]
    pages: tuple[Path, ...]
    notes: tuple[str, ...]


def submit(runs: Sequence[Path], board: Path, progress: Progress | None = None) -> Submission:
    """Verify finished runs, copy record, rows and manifest of each, and build the boards again.

    Submitting the same result again changes nothing.

    Args:
        runs: run directories, or folders of some.
        board: folder of the boards.
        progress: function that is called with the finished and all items of a task.

    Raises:
        FssbenchError: a run is not finished or was cut; a result does not verify or has private
            data; or the board has another result of its setting. Nothing was copied then.
    """
    started = {file.parent for path in runs for file in path.rglob(MANIFEST_FILE)}
    for folder in sorted(started):
        if not (folder / RECORD_FILE).exists():
            advice = "run its `fssbench evaluate` again"
            raise FssbenchError(f"{folder}: this run is not finished; {advice}")
    results = [_checked(folder) for folder in find_results(runs)]
    targets: dict[Path, Result] = {}
    for result in results:
        target = board / cell(result.record)
        if target in targets:
            other = f"{targets[target].folder} is the same method and setting"
            raise FssbenchError(f"{result.folder}: {other}; submit one")
        targets[target] = result
    there = [target for target, result in targets.items() if _is_there(result, target)]
    pages = build_boards([result.folder for result in results], board, progress)
    return Submission(
        added=tuple(target for target in targets if target not in there),
        there=tuple(there),
        pages=tuple(pages),
        notes=(*_notes(results), *_missing_folds([*targets])),
    )


def _checked(folder: Path) -> Result:
    # Intervals take long, and are verified before anything is copied.
    for problem in problems(folder, intervals=False) or private_problems(folder, own_names()):
        raise FssbenchError(problem)
    result = read_result(folder)
    info = result.record.manifest
    if info.limit is not None:
        problem = f"only the first {info.episodes} episodes were measured"
        raise FssbenchError(f"{folder / RECORD_FILE}: {problem}; evaluate without --limit")
    return result


def _is_there(result: Result, target: Path) -> bool:
    if not (target / RECORD_FILE).exists():
        return False
    files = [(target / name, result.folder / name) for name in FILES]
    if all(old.exists() and old.read_bytes() == new.read_bytes() for old, new in files):
        return True
    raise FssbenchError(
        f"{result.folder}: {target} is another result of this method and setting; to correct it, "
        "delete that folder first and give the reason in the pull request"
    )


def _notes(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        record = result.record
        if reason := record.rankable or (REPLAY if is_replay(record.protocol) else ""):
            yield f"{result.folder}: {reason}: its row has no rank"
        if record.environment.get("dirty"):
            problem = "measured with uncommitted changes of fssbench"
            yield f"{result.folder}: {problem}; a reviewer may ask for a clean run"


def _missing_folds(targets: Sequence[Path]) -> Iterator[str]:
    """Yield a line for each method on the board that lacks a fold of its dataset."""
    settings = {(target.parent, target.name.partition("-")[2]): target for target in targets}
    for (method, setting), target in sorted(settings.items()):
        folds = known_folds(read_result(target).record.dataset.name) or 0
        names = [f"fold{fold}-{setting}" for fold in range(folds)]
        if missing := [name for name in names if not (method / name / RECORD_FILE).exists()]:
            yield f"{method}: {', '.join(missing)} missing: a row that lacks folds has no rank"
