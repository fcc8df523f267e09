"""Storage of results below a board's folder."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.method import method_id
from fssbench.results.record import RECORD_FILE, Record
from fssbench.results.result import FILES, Result, read_result

RESULTS = "results"

_log = logging.getLogger(__name__)


def cell(record: Record) -> PurePosixPath:
    """Return the path of a result below the board's folder; folds of a method share a folder."""
    head, _, tail = record.protocol.rpartition("/")
    protocol = tail if head == record.dataset.name else flat(record.protocol)
    method = f"{flat(record.matcher)}--{flat(record.backbone)}--{method_id(record)}"
    setting = f"fold{record.fold}-{record.shots}shot-seed{record.seed}"
    return PurePosixPath(RESULTS, flat(record.dataset.name), protocol, method, setting)


def flat(name: str) -> str:
    """Return a name as a part of a path."""
    return name.replace("/", "-")


def stored_results(out: Path) -> list[Path]:
    """Return the sorted folders of all results below `out`."""
    return sorted({file.parent for file in (out / RESULTS).rglob(RECORD_FILE)})


def store(result: Result, out: Path, *, flush: bool = True) -> bool:
    """Copy a result to its `cell`; the newer of two records of the same evaluation remains.

    Args:
        result: the result.
        out: folder of the pages and of ``results/``.
        flush: see `fssbench.files.write_atomically`.

    Returns:
        True if files were written.

    Raises:
        FssbenchError: the cell has a result of other episodes or another checkpoint.
    """
    target, new = out / cell(result.record), result.record
    if target.resolve() == result.folder.resolve():
        return False
    if (target / RECORD_FILE).exists():
        old = read_result(target).record
        hashes = [record.checkpoint and record.checkpoint.sha256 for record in (old, new)]
        differences = {
            "other episodes": old.manifest.digest != new.manifest.digest,
            "another checkpoint": hashes[0] != hashes[1],
            # Older records name neither images nor code.
            "other images": differ(old.dataset.images, new.dataset.images),
            "other code": differ(_code(old), _code(new)),
        }
        if what := ", ".join(name for name, differs in differences.items() if differs):
            there = f"{target} is this method and setting already, with {what}"
            raise FssbenchError(f"{result.folder}: {there}; leave one of them out")
        if old.created >= new.created:
            _log.info("%s: left out, %s is as new or newer", result.folder, target)
            return False
        _log.info("%s: replaces the older %s", result.folder, target)
    # The record is last, so that an interrupted copy is no result.
    for name in reversed(FILES):
        write_atomically(target / name, (result.folder / name).read_bytes(), flush=flush)
    return True


def differ(first: object, second: object) -> bool:
    """Return True if two known (not empty) values differ."""
    return bool(first and second) and first != second


def _code(record: Record) -> dict[str, tuple[str, str]]:
    return {name: (code.version, code.sha256) for name, code in record.code.items()}
