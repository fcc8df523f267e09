"""A run directory: lock, identity, journal; what makes an interrupted run go on where it was."""

from __future__ import annotations

import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
from torch import Tensor

from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.evaluation.chunk_queue import ChunkQueue
from fssbench.evaluation.run import Run
from fssbench.files import cannot_write
from fssbench.results.predictions import Predictions
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record
from fssbench.results.rows import read_rows, write_rows
from fssbench.results.verify import rows_problem, score_problems
from fssbench.runtime.locked_folder import LockedFolder

JOURNAL_FILE = "journal.jsonl"

log = logging.getLogger(__name__)


class RunDirectory(LockedFolder):
    """Where one evaluation keeps its files; a context manager that holds the lock.

    Every measured chunk is a line of the journal, flushed to the disk before the next one starts.
    A line carries a checksum, so that half a line (the machine died) or a damaged one is seen, and
    its chunk is measured again. The journal goes when the record is written.

    Args:
        folder: the directory; made if it is not there.
        identity: everything that the rows depend on. A directory holds one identity for ever.
        manifest: the episodes.
        keep_predictions: keep the predicted masks too. They are in the same line of the journal as
            their rows, so there are never the ones without the others.

    Raises:
        FssbenchError: another process works in the directory, it holds another run, or it cannot be
            read or written.
    """

    identity_file = "run.json"
    work = "run"

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        manifest: Manifest,
        *,
        keep_predictions: bool = False,
    ) -> None:
        super().__init__(folder, identity)
        self.manifest = manifest
        self.seconds = 0.0
        self._pending_seconds = 0.0
        self._expected = chunks_of(manifest.episodes)
        self._chunks: dict[int, pandas.DataFrame] = {}
        self._predictions: Predictions | None = None
        if keep_predictions:
            self._predictions = Predictions(manifest=manifest.digest)

    def entered(self) -> None:
        """Write the manifest if it is not there whole, and read what is measured already."""
        path = self.folder / MANIFEST_FILE
        if not path.exists() or not self._is_ours(path):
            self.manifest.write(path)
        self._read_journal()

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the chunks that are measured."""
        return frozenset(self._chunks)

    def left(self) -> dict[int, Sequence[Episode]]:
        """Chunks that nobody measured, after parts that other processes left here were taken."""
        for part in ChunkQueue(self.folder).parts(self._missing()):
            self.add_seconds(part.seconds)
            self._keep(part.chunk, part.episodes, part.rows, part.predictions)
        return self._missing()

    def _missing(self) -> dict[int, Sequence[Episode]]:
        return {n: episodes for n, episodes in self._expected.items() if n not in self._chunks}

    def finished(self) -> Record | None:
        """The record, when the run was finished before.

        Its scores are compared with the rows: a record may be from before there were digests, or
        somebody's hand may have been in it.

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
        """The rows of all measured chunks, in manifest order."""
        rows = pandas.concat([self._chunks[n] for n in sorted(self._chunks)])
        return rows.sort_values("index", ignore_index=True)  # chunks are in the order of visiting

    def predictions_digest(self) -> str:
        """Digest of the masks that are kept, or "" when none are."""
        return "" if self._predictions is None else self._predictions.digest

    def add_seconds(self, seconds: float) -> None:
        """Time that belongs to the chunk which is handed to the hook next."""
        self.seconds += seconds
        self._pending_seconds = seconds

    def fssbench_episodes_measured(
        self,
        run: Run,
        chunk: int,
        episodes: Sequence[Episode],
        rows: pandas.DataFrame,
        predictions: Sequence[Tensor],
    ) -> None:
        """Hook: write the chunk into the journal."""
        del run
        self._keep(chunk, episodes, rows, predictions)

    def _keep(
        self,
        chunk: int,
        episodes: Sequence[Episode],
        rows: pandas.DataFrame,
        predictions: Sequence[Tensor],
    ) -> None:
        entry: dict[str, Any] = {
            "chunk": chunk,
            "seconds": self._pending_seconds,
            "columns": list(rows.columns),
            "rows": [list(row) for row in rows.itertuples(index=False, name=None)],
        }
        if self._predictions is not None:
            entry["predictions"] = self._predictions.add(episodes, predictions)
        text = json.dumps(entry, separators=(",", ":"))
        line = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        path = self.folder / JOURNAL_FILE
        try:
            with path.open("ab", buffering=0) as file:
                if file.tell() and not self._ends_a_line(path):
                    line = b"\n" + line
                if file.write(line) != len(line):
                    raise OSError(None, "the disk took only part of it")
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error
        self._chunks[chunk] = rows

    def finish(self, record: Record) -> None:
        """Write rows, then the record, each by rename; then the journal is of no more use."""
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
            checksum, _, text = line.partition(b" ")
            if checksum != f"{zlib.crc32(text):08x}".encode():
                log.warning("%s: line %d is damaged; its episodes are done again", path, number)
                continue
            try:
                entry = json.loads(text)
                whole = self._is_chunk(entry)
                rows = pandas.DataFrame(entry["rows"], columns=entry["columns"])
                rows = rows.astype({"query": str})
                predictions = [] if self._predictions is None else entry["predictions"]
                chunk, seconds = entry["chunk"], float(entry["seconds"])
            except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
                whole = False
            if not whole:
                log.warning(
                    "%s: line %d is of other chunks; its episodes are done again", path, number
                )
                continue
            if self._predictions is not None:
                self._predictions.restore(predictions)
            if chunk not in self._chunks:
                self.seconds += seconds
            self._chunks[chunk] = rows

    def _is_ours(self, path: Path) -> bool:
        """Whether the manifest on the disk is the one that is evaluated."""
        try:
            return Manifest.read(path) == self.manifest
        except FssbenchError as error:
            log.warning("%s; it is written again", error)
            return False

    def _is_chunk(self, entry: Mapping[str, Any]) -> bool:
        """Whether a line holds the episodes that its chunk has in this version of fssbench."""
        place = entry["columns"].index("index")
        found = [row[place] for row in entry["rows"]]
        return found == [e.index for e in self._expected.get(entry["chunk"], ())]

    @staticmethod
    def _ends_a_line(path: Path) -> bool:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
