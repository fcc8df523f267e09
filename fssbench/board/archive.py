"""Storage of results below a board's folder."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.method import method_id
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record
from fssbench.results.result import Result, read_result

RESULTS = "results"

_log = logging.getLogger(__name__)


def cell(record: Record) -> PurePosixPath:
    """Return the path of a result below the board's folder; folds of a method share a folder."""
    head, _, tail = record.protocol.rpartition("/")
    protocol = tail if head == record.dataset.name else _flat(record.protocol)
    method = f"{_flat(record.matcher)}--{_flat(record.backbone)}--{method_id(record)}"
    setting = f"fold{record.fold}-{record.shots}shot-seed{record.seed}"
    return PurePosixPath(RESULTS, _flat(record.dataset.name), protocol, method, setting)


def _flat(name: str) -> str:
    return name.replace("/", "-")


def store(result: Result, out: Path) -> Path:
    """Copy a result to its `cell`; of two records of the same evaluation, keep the newer one.

    Returns:
        The folder in `out`.

    Raises:
        FssbenchError: the cell is taken by other episodes or another checkpoint.
    """
    target = out / cell(result.record)
    if target.resolve() == result.folder.resolve():
        return target
    if (target / RECORD_FILE).exists():
        there = read_result(target).record
        here = result.record
        if _evaluated(there) != _evaluated(here):
            what = "other episodes" if _digest(there) != _digest(here) else "another checkpoint"
            raise FssbenchError(
                f"{result.folder}: {target} is this method and setting already, with {what}; "
                "leave one of them out"
            )
        if there.created >= here.created:
            _log.info("%s: left out, %s is as new or newer", result.folder, target)
            return target
        _log.info("%s: replaces the older %s", result.folder, target)
    for name in (MANIFEST_FILE, ROWS_FILE, RECORD_FILE):
        write_atomically(target / name, (result.folder / name).read_bytes())
    return target


def _evaluated(record: Record) -> tuple[str, str]:
    return _digest(record), record.checkpoint.sha256 if record.checkpoint else ""


def _digest(record: Record) -> str:
    return record.manifest.digest
