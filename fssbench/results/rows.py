"""Table of an evaluation: one row for each episode, or for each way of it."""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from pathlib import Path
from typing import Any

import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within, write_atomically

KEYS = ("index", "class_id", "query")
WAY = "way"
"""Key column of tables of several ways: number of the way, from 1."""
NOVEL = "novel"
"""Key column of tables with base classes: 1 for a novel class, 0 for a base class."""
MOST_BYTES = 128 * MIB
"""Maximum unpacked size of a table; 10,000 episodes take one MiB."""

# Before pandas 3.1, the default parser may change the last bit of a float.
_OLD = tuple(map(int, pandas.__version__.split(".")[:2])) < (3, 1)
_EXACT: dict[str, Any] = {"float_precision": "round_trip"} if _OLD else {}


def rows_bytes(rows: pandas.DataFrame) -> bytes:
    """Return the table as gzipped CSV; equal tables give equal bytes."""
    text = rows.to_csv(index=False, lineterminator="\n")
    return gzip.compress(text.encode(), mtime=0)


def write_rows(rows: pandas.DataFrame, path: Path) -> None:
    """Write ``rows.csv.gz`` atomically."""
    write_atomically(path, rows_bytes(rows))


def read_rows(path: Path) -> pandas.DataFrame:
    """Read the file of `write_rows`.

    Raises:
        FssbenchError: the file cannot be read or is too large, lacks a key column, or has values
            other than numbers in a column other than ``query``.
    """
    try:
        rows = _parsed(read_within(path, MOST_BYTES, packed=True))
    except OSError as error:
        reason = error.strerror or str(error)
        raise FssbenchError(f"{path}: cannot read these rows: {reason}") from error
    except (ValueError, TypeError, OverflowError, EOFError, zlib.error) as error:
        reason = " ".join(str(error).split())
        advice = "copy the file again, or remove its folder and evaluate again"
        raise FssbenchError(f"{path}: these rows are damaged: {reason}; {advice}") from error
    if missing := [key for key in KEYS if key not in rows.columns]:
        raise FssbenchError(f"{path}: these rows lack the column {', '.join(missing)}")
    for name in {"index", "class_id", WAY, NOVEL} & set(rows.columns):
        if not pandas.api.types.is_integer_dtype(rows[name]):
            raise FssbenchError(f"{path}: these rows are damaged: column {name}: no whole numbers")
    return rows


def _parsed(text: bytes) -> pandas.DataFrame:
    rows: pandas.DataFrame = pandas.read_csv(
        io.BytesIO(text), dtype={"query": str}, keep_default_na=False, low_memory=False, **_EXACT
    )
    if not isinstance(rows.index, pandas.RangeIndex):
        raise ValueError("lines with more cells than columns")  # pandas would shift the cells
    for name in rows.columns.difference(["query"]):
        rows[name] = pandas.to_numeric(rows[name])  # an empty cell is NaN
    return rows


def misplaced(rows: pandas.DataFrame, manifest: Manifest) -> str:
    """Return the first difference of rows from the episodes of a manifest in order, or ""."""
    ways, count = manifest.by_way(), manifest.ways
    if len(rows) != len(ways):
        of = f" of {count} ways" * (count > 1)
        return f"{len(rows)} rows for the manifest's {len(manifest.episodes)} episodes{of}"
    if (WAY in rows.columns) != (count > 1):
        return f"column {WAY}: the manifest has {count} way{'s' * (count > 1)}"
    if (NOVEL in rows.columns) != any(not way.support for way in ways):
        return f"column {NOVEL}: only tables with base classes have it"
    listed = rows[list(KEYS)].itertuples(index=False, name=None)
    numbers, novel = (
        rows[name] if name in rows.columns else itertools.repeat(1) for name in (WAY, NOVEL)
    )
    each = zip(listed, numbers, novel, ways, strict=False)
    for line, (row, number, known, way) in enumerate(each, start=2):
        true = way.index, way.class_id, way.query, (line - 2) % count + 1, bool(way.support)
        if (*row, number, known) != true:
            return f"line {line} is not episode {way.index} of the manifest"
    return ""


def confusion_columns(ways: int) -> list[str]:
    """Return the columns of pixels of the row's class by predicted label; none for one way."""
    if ways == 1:
        return []
    return ["predicted_background", *(f"predicted_way{way}" for way in range(1, ways + 1))]


def rows_of(rows: pandas.DataFrame, index: int, ways: int) -> pandas.DataFrame:
    """Return the rows of an episode, one for each way, of a table in the order of the manifest."""
    own: pandas.DataFrame = rows.iloc[index * ways : (index + 1) * ways]
    return own
