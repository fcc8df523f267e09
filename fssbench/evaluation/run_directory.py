"""Run directory: lock, identity, and the journal from which an interrupted run resumes."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.evaluation.chunk_queue import ChunkQueue
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.files import cannot_write
from fssbench.results.predictions import Predictions
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record
from fssbench.results.rows import WAY, read_rows, write_rows
from fssbench.results.verify import rows_problem, score_problems
from fssbench.runtime.locked_folder import LockedFolder

JOURNAL_FILE = "journal.jsonl"

log = logging.getLogger(__name__)


class RunDirectory(LockedFolder):
    """The directory of one evaluated cell; a context manager that holds the lock.

    Each measured chunk is a line of the journal, flushed to the disk before the next chunk starts.
    A line carries a checksum, so a truncated or damaged line is found, and its chunk is measured
    again. The journal is removed when the record is written.

    Args:
        folder: directory, created if it is missing.
        identity: everything that the rows depend on, as JSON values. It never changes.
        manifest: episodes of the cell.
        save_predictions: True to save the predicted masks. They are in the same line of the journal
            as their rows.
        fresh: True to discard the rows of an earlier run.

    Raises:
        FssbenchError: another process has locked the directory, it belongs to another run, or it
            cannot be read or written.
    """

    identity_file = "run.json"
    work = "run"
    remedy = "choose another --out, or start anew with --fresh"

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        manifest: Manifest,
        *,
        save_predictions: bool = False,
        fresh: bool = False,
    ) -> None:
        super().__init__(folder, identity, fresh=fresh)
        self.manifest = manifest
        self.seconds = 0.0
        self._chunks = chunks_of(manifest.episodes)
        self._rows: dict[int, pandas.DataFrame] = {}
        self._predictions = Predictions(manifest=manifest.digest) if save_predictions else None

    def entered(self) -> None:
        """Write the manifest unless it is there, and read the journal."""
        path = self.folder / MANIFEST_FILE
        if not path.exists() or not self._holds_manifest(path):
            self.manifest.write(path)
        self._read_journal()

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the measured chunks."""
        return frozenset(self._rows)

    def left(self) -> dict[int, Sequence[Episode]]:
        """Return the chunks still to measure, after adding results that other processes left."""
        for result in ChunkQueue(self.folder).results(self._missing()):
            self.add(result)
        return self._missing()

    def _missing(self) -> dict[int, Sequence[Episode]]:
        return {n: episodes for n, episodes in self._chunks.items() if n not in self._rows}

    def finished(self) -> Record | None:
        """Return the record of a finished run, whose scores agree with its rows; None without one.

        Raises:
            FssbenchError: the record or the rows are damaged.
        """
        paths = self.folder / RECORD_FILE, self.folder / ROWS_FILE
        if not all(path.exists() for path in paths):
            return None
        record, rows = Record.read(paths[0]), read_rows(paths[1])
        wrong = rows_problem(rows, self.manifest)
        if wrong:
            raise FssbenchError(f"{paths[1]}: {wrong}; remove {self.folder} and evaluate again")
        for wrong in score_problems(record, self.manifest, rows):
            raise FssbenchError(f"{paths[0]}: {wrong}; remove {self.folder} and evaluate again")
        return record

    def rows(self) -> pandas.DataFrame:
        """Return the rows of all measured chunks, in manifest order."""
        rows = pandas.concat([self._rows[n] for n in sorted(self._rows)])
        keys = [name for name in ("index", WAY) if name in rows.columns]
        return rows.sort_values(keys, ignore_index=True)  # chunks are in visiting order

    def predictions_digest(self) -> str:
        """Return the digest of the saved masks, or "" if masks are not saved."""
        return "" if self._predictions is None else self._predictions.digest

    def add(self, result: ChunkResult) -> None:
        """Append the result of a chunk to the journal.

        Raises:
            FssbenchError: the file cannot be written.
        """
        line = result.to_bytes(masks=self._predictions is not None) + b"\n"
        path = self.folder / JOURNAL_FILE
        try:
            with path.open("ab", buffering=0) as file:
                if file.tell() and not _ends_a_line(path):
                    line = b"\n" + line
                if file.write(line) != len(line):
                    raise OSError(None, "the disk took only part of it")
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error
        self._include(result)

    def _include(self, result: ChunkResult) -> None:
        if self._predictions is not None:
            self._predictions.add(result.episodes, result.predictions)
        if result.chunk not in self._rows:
            self.seconds += result.seconds
        self._rows[result.chunk] = result.rows

    def finish(self, record: Record) -> None:
        """Write rows and record, each by rename, and remove the journal."""
        write_rows(self.rows(), self.folder / ROWS_FILE)
        if self._predictions is not None:
            self._predictions.write(self.folder)
        record.write(self.folder)
        (self.folder / JOURNAL_FILE).unlink(missing_ok=True)
        ChunkQueue(self.folder).close()

    def _read_journal(self) -> None:
        path = self.folder / JOURNAL_FILE
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise FssbenchError(
                f"{path}: cannot read the journal: {error.strerror}; choose another --out"
            ) from error
        for number, line in enumerate(filter(None, lines), start=1):
            try:
                result = ChunkResult.from_bytes(line, self._chunks)
                if self._predictions is not None and not result.predictions:
                    raise ValueError("it holds no masks")
            except ValueError as error:
                log.warning("%s: line %d: %s; its episodes are measured again", path, number, error)
                continue
            self._include(result)

    def _holds_manifest(self, path: Path) -> bool:
        try:
            return Manifest.read(path) == self.manifest
        except FssbenchError as error:
            log.warning("%s; it is written again", error)
            return False


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
