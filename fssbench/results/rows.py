"""The table of an evaluation: one row for each episode."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within, write_atomically

KEYS = ("index", "class_id", "query")
MOST_BYTES = 128 * MIB
"""No table is larger, unpacked: 10,000 episodes take one."""

# Before pandas 3.1, floats came back with another last bit unless one asked for all of them.
_OLD = tuple(int(part) for part in pandas.__version__.split(".")[:2]) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}


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
        FssbenchError: it cannot be read, it is too large, the key columns are not there, or another
            column than ``query`` holds no numbers.
    """
    try:
        rows = _parsed(read_within(path, MOST_BYTES, packed=True))
    except OSError as error:
        reason = error.strerror or str(error)
        raise FssbenchError(f"{path}: cannot read these rows: {reason}") from error
    except (ValueError, TypeError, OverflowError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise FssbenchError(
            f"{path}: these rows are damaged: {reason}; copy the file again, or remove its folder "
            "and evaluate again"
        ) from error
    missing = [key for key in KEYS if key not in rows.columns]
    if missing:
        raise FssbenchError(f"{path}: these rows lack the column {', '.join(missing)}")
    for name in rows.columns.drop("query"):
        whole = pandas.api.types.is_integer_dtype(rows[name])
        if (name in KEYS and not whole) or not pandas.api.types.is_numeric_dtype(rows[name]):
            kind = "whole numbers" if name in KEYS else "numbers"
            raise FssbenchError(f"{path}: these rows are damaged: column {name[:40]!r}: no {kind}")
    return rows


def _parsed(text: bytes) -> pandas.DataFrame:
    rows: pandas.DataFrame = pandas.read_csv(
        io.BytesIO(text), dtype={"query": str}, keep_default_na=False, low_memory=False,
        **_EXACT,
    )  # fmt: skip
    if not isinstance(rows.index, pandas.RangeIndex):
        raise ValueError("lines with more cells than columns")  # pandas would shift all of them
    for name in rows.columns:
        if name != "query" and not pandas.api.types.is_numeric_dtype(rows[name]):
            rows[name] = pandas.to_numeric(rows[name])  # an empty cell is NaN
    return rows


def misplaced(rows: pandas.DataFrame, manifest: Manifest) -> str:
    """Why rows are not the episodes of a manifest in order, or "" when they are."""
    if len(rows) != len(manifest.episodes):
        return f"{len(rows)} rows for the manifest's {len(manifest.episodes)} episodes"
    listed = zip(rows["index"], rows["class_id"], rows["query"], strict=True)
    for line, (row, episode) in enumerate(zip(listed, manifest.episodes, strict=True), start=2):
        if row != (episode.index, episode.class_id, episode.query):
            return f"line {line} is not episode {episode.index} of the manifest"
    return ""
