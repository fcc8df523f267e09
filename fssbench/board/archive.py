"""Results: a record with its rows and its manifest, found, read, and stored where boards read."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import cattrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record
from fssbench.results.rows import read_rows

RESULTS = "results"
FILES = (RECORD_FILE, ROWS_FILE, MANIFEST_FILE)
# What of a checkpoint's header tells two trainings of the same method apart; the fold does not.
TRAINING = ("dataset", "recipe", "stage", "shots", "seed", "selected_on")

_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,99}")
_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Result:
    """One evaluation in a folder.

    Attributes:
        folder: holds ``record.json``, ``rows.csv.gz`` and ``manifest.jsonl.gz``.
        record: the record.
    """

    folder: Path
    record: Record

    def rows(self) -> pandas.DataFrame:
        """The per-episode table."""
        return read_rows(self.folder / ROWS_FILE)

    def manifest(self) -> Manifest:
        """The episodes."""
        return Manifest.read(self.folder / MANIFEST_FILE)


def find_results(paths: Sequence[Path]) -> list[Path]:
    """Folders that hold a record, at or below `paths`, sorted.

    Runs that are not finished (a manifest, no record yet) are counted in a log warning.

    Raises:
        FssbenchError: a path does not exist, or there is no record below it.
    """
    found: set[Path] = set()
    unfinished: set[Path] = set()
    for path in paths:
        if not path.is_dir():
            raise FssbenchError(f"{path}: no such folder; name run directories, or what holds them")
        records = {file.parent for file in path.rglob(RECORD_FILE)}
        unfinished |= {file.parent for file in path.rglob(MANIFEST_FILE)} - records
        if not records:
            raise FssbenchError(f"{path}: no {RECORD_FILE} in or below it; finish a run first")
        found |= records
    if unfinished:
        _log.warning("left out %d unfinished run(s), first %s", len(unfinished), min(unfinished))
    return sorted(found)


def read_result(folder: Path) -> Result:
    """Read the record of a folder.

    Raises:
        FssbenchError: the record cannot be read, or a name in it cannot be a file name.
    """
    path = folder / RECORD_FILE
    try:
        record = Record.read(path)
    except RecursionError as error:
        raise FssbenchError(f"{path}: this is no record: nested too deep") from error
    names = {
        "dataset": record.dataset.name,
        "protocol": record.protocol,
        "matcher": record.matcher,
        "backbone": record.backbone,
    }
    for what, name in names.items():
        if not all(_NAME.fullmatch(part) for part in name.split("/")) or name.count("/") > 1:
            raise FssbenchError(
                f"{path}: {what} {name[:60]!r} is no name: use lower-case letters, digits and "
                ". _ + -, with at most one /"
            )
    if record.fold < 0 or record.shots < 1:
        raise FssbenchError(f"{path}: fold {record.fold}, shots {record.shots}: no such setting")
    return Result(folder=folder, record=record)


def method_identity(record: Record) -> dict[str, Any]:
    """What makes two records folds of one and the same method; equal for all its folds.

    Checkpoints differ from fold to fold, so of a checkpoint only the `TRAINING` facts count.
    """
    checkpoint = record.checkpoint
    return {
        "matcher": record.matcher,
        "config": cattrs.unstructure(record.config),
        "backbone": record.backbone,
        # The same file is the same weights, whether it came from the hub or from a folder; a
        # backbone that was trained is another one for each fold.
        "weights": (
            "checkpoint"
            if brings_backbone(record)
            else record.weights.sha256 or record.weights.source
        ),
        "precision": record.environment.get("precision"),
        # Only where they were rounded, so that the places of all other results stay.
        **({"features": record.environment["features"]} if rounded(record) else {}),
        "training": training_facts(record) if checkpoint else None,
        "protocol": record.protocol,
        "fingerprint": record.dataset.fingerprint,
        "limit": record.manifest.limit,
    }


def rounded(record: Record) -> bool:
    """Whether features were kept at half the precision that they were computed in."""
    return "features" in record.environment


def brings_backbone(record: Record) -> bool:
    """Whether the checkpoint holds the backbone too, because a stage trained it."""
    return record.checkpoint is not None and bool(record.checkpoint.header.get("holds_backbone"))


def training_facts(record: Record) -> dict[str, Any]:
    """The `TRAINING` facts of the checkpoint's header; none without a checkpoint."""
    header = record.checkpoint.header if record.checkpoint else {}
    return {key: header[key] for key in TRAINING if key in header}


def method_id(record: Record) -> str:
    """Six hexadecimal digits of the method's identity."""
    text = json.dumps(method_identity(record), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def cell(record: Record) -> PurePosixPath:
    """Where a result is stored, below the board's folder; the folds of a method lie together."""
    head, _, tail = record.protocol.rpartition("/")
    protocol = tail if head == record.dataset.name else _flat(record.protocol)
    method = f"{_flat(record.matcher)}--{_flat(record.backbone)}--{method_id(record)}"
    setting = f"fold{record.fold}-{record.shots}shot-seed{record.seed}"
    return PurePosixPath(RESULTS, _flat(record.dataset.name), protocol, method, setting)


def _flat(name: str) -> str:
    return name.replace("/", "-")


def store(result: Result, out: Path) -> Path:
    """Copy a result to its `cell`; of two records of the same evaluation the newer one stays.

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
