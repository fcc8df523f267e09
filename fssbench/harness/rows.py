"""The table of an evaluation: one row for each episode."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import pandas

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically

KEYS = ("index", "class_id", "query")


def rows_bytes(rows: pandas.DataFrame) -> bytes:
    """The table as gzipped CSV; the same table gives the same bytes."""
    text = rows.to_csv(index=False, lineterminator="\n")
    return gzip.compress(text.encode(), mtime=0)


def write_rows(rows: pandas.DataFrame, path: Path) -> None:
    """Write ``rows.csv.gz``, by rename."""
    write_atomically(path, rows_bytes(rows))


def read_rows(path: Path) -> pandas.DataFrame:
    """Read what `write_rows` wrote.

    Raises:
        FssbenchError: it cannot be read, or the key columns are not there.
    """
    try:
        text = gzip.decompress(path.read_bytes())
        rows = pandas.read_csv(io.BytesIO(text), dtype={"query": str}, keep_default_na=False)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FssbenchError(f"{path}: cannot read these rows: {reason}") from error
    except (ValueError, EOFError, zlib.error) as error:
        raise FssbenchError(f"{path}: these rows are damaged: {error}") from error
    missing = [key for key in KEYS if key not in rows.columns]
    if missing:
        raise FssbenchError(f"{path}: these rows lack the column {', '.join(missing)}")
    return rows
