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

from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import cannot_write
from fssbench.harness.claimed import ClaimedFolder
from fssbench.harness.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record
from fssbench.harness.rows import write_rows
from fssbench.harness.run import Run

JOURNAL_FILE = "journal.jsonl"

log = logging.getLogger(__name__)


class RunDirectory(ClaimedFolder):
    """Where one evaluation keeps its files; a context manager that holds the lock.

    Every measured chunk is a line of the journal, flushed to the disk before the next one starts.
    A line carries a checksum, so that half a line (the machine died) or a damaged one is seen, and
    its chunk is measured again. The journal goes when the record is written.

    Args:
        folder: the directory; made if it is not there.
        identity: everything that the rows depend on. A directory holds one identity for ever.
        manifest: the episodes.

    Raises:
        FssbenchError: another process works in the directory, it holds another run, or it cannot be
            read or written.
    """

    identity_file = "run.json"
    work = "run"

    def __init__(self, folder: Path, identity: Mapping[str, Any], manifest: Manifest) -> None:
        super().__init__(folder, identity)
        self.manifest = manifest
        self.seconds = 0.0
        self._pending_seconds = 0.0
        self._chunks: dict[int, pandas.DataFrame] = {}

    def entered(self) -> None:
        """Write the manifest if it is not there yet, and read what is measured already."""
        if not (self.folder / MANIFEST_FILE).exists():
            self.manifest.write(self.folder / MANIFEST_FILE)
        self._read_journal()

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the chunks that are measured."""
        return frozenset(self._chunks)

    def finished(self) -> Record | None:
        """The record, when the run was finished before."""
        path = self.folder / RECORD_FILE
        if not path.exists() or not (self.folder / ROWS_FILE).exists():
            return None
        return Record.read(path)

    def rows(self) -> pandas.DataFrame:
        """The rows of all measured chunks, in manifest order."""
        return pandas.concat([self._chunks[n] for n in sorted(self._chunks)], ignore_index=True)

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
        del run, episodes, predictions
        entry = {
            "chunk": chunk,
            "seconds": self._pending_seconds,
            "columns": list(rows.columns),
            "rows": [list(row) for row in rows.itertuples(index=False, name=None)],
        }
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
        record.write(self.folder)
        (self.folder / JOURNAL_FILE).unlink(missing_ok=True)

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
            entry = json.loads(text)
            rows = pandas.DataFrame(entry["rows"], columns=entry["columns"])
            if entry["chunk"] not in self._chunks:
                self.seconds += entry["seconds"]
            self._chunks[entry["chunk"]] = rows.astype({"query": str})

    @staticmethod
    def _ends_a_line(path: Path) -> bool:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
