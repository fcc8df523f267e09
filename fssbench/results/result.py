"""Results: records with their rows and manifests."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import attrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import sha256
from fssbench.results.frame import flat_fields
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record
from fssbench.results.rows import read_rows

FILES = (RECORD_FILE, ROWS_FILE, MANIFEST_FILE)

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,99}")
_LAST: dict[str, Manifest] = {}
"""The last manifest that was read, by the SHA-256 of its file."""
_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Result:
    """An evaluation in a folder.

    Attributes:
        folder: folder of ``record.json``, ``rows.csv.gz`` and ``manifest.jsonl.gz``.
        record: the record.
    """

    folder: Path
    record: Record

    def rows(self) -> pandas.DataFrame:
        """Return the per-episode table."""
        return read_rows(self.folder / ROWS_FILE)

    def manifest(self) -> Manifest:
        """Return the manifest."""
        return read_manifest(self.folder / MANIFEST_FILE)


def read_manifest(path: Path) -> Manifest:
    """Return a manifest; a file equal to the last one read is not parsed again.

    The methods of a table have equal manifests.

    Raises:
        FssbenchError: see `Manifest.read`.
    """
    try:
        digest = sha256(path)
    except OSError:
        return Manifest.read(path)  # raises the user's error
    if digest not in _LAST:
        manifest = Manifest.read(path)
        _LAST.clear()
        _LAST[digest] = manifest
    return _LAST[digest]


def find_results(paths: Sequence[Path]) -> list[Path]:
    """Return the sorted folders with a record, at or below `paths`.

    A log warning counts unfinished runs: those with a manifest, but without a record.

    Raises:
        FssbenchError: a path does not exist, or there is no record below it.
    """
    found: set[Path] = set()
    unfinished: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise FssbenchError(f"{path}: no such folder; name run directories, or folders of some")
        records = {file.parent for file in path.rglob(RECORD_FILE)}
        unfinished |= {file.parent for file in path.rglob(MANIFEST_FILE)} - records
        if not records:
            raise FssbenchError(f"{path}: no {RECORD_FILE} in or below it; finish a run first")
        found |= records
    if unfinished:
        _log.warning("left out %d unfinished run(s), first %s", len(unfinished), min(unfinished))
    return sorted(found)


def load_records(folder: Path | str) -> pandas.DataFrame:
    """Return a table with a line for each record below a folder, sorted by folder.

    The columns are those of `Record.to_frame`, preceded by ``folder``, the run directory with
    ``rows.csv.gz``. Options that a method lacks are NaN.

    Args:
        folder: folder of runs or of boards.

    Raises:
        FssbenchError: the folder does not exist, has no record, or a record cannot be read.
    """
    results = [read_result(each) for each in find_results([Path(folder)])]
    return pandas.DataFrame([{"folder": r.folder, **flat_fields(r.record)} for r in results])


def load_rows(folder: Path | str) -> pandas.DataFrame:
    """Return the per-episode tables of all records below a folder as one, sorted by folder.

    The columns are those of ``rows.csv.gz``, preceded by ``folder``, by which
    `fssbench.load_records` joins the setting. Columns that a table lacks are NaN.

    Args:
        folder: run directory, or folder of runs or of boards.

    Raises:
        FssbenchError: the folder does not exist, has no record, or a table cannot be read.
    """
    folders = find_results([Path(folder)])
    tables = [read_rows(each / ROWS_FILE) for each in folders]
    joined = pandas.concat(tables, keys=folders, names=["folder", None])
    return joined.reset_index(0).reset_index(drop=True)


def read_result(folder: Path) -> Result:
    """Read the record of a folder.

    Raises:
        FssbenchError: the record cannot be read, or a name in it is no valid file name.
    """
    path = folder / RECORD_FILE
    record = Record.read(path)
    names = {what: getattr(record, what) for what in ("protocol", "matcher", "backbone")}
    for what, name in {"dataset": record.dataset.name, **names}.items():
        if not all(_NAME.fullmatch(part) for part in name.split("/")) or name.count("/") > 1:
            rule = "use lower-case letters, digits and . _ + -, with at most one /"
            raise FssbenchError(f"{path}: {what} {name[:60]!r} is no name: {rule}")
    if record.fold < 0 or record.shots < 1:
        raise FssbenchError(f"{path}: fold {record.fold}, shots {record.shots}: no such setting")
    return Result(folder=folder, record=record)
