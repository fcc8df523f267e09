"""Verifying a result: is what its record says what its manifest and its rows give?"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs
import pandas

from fssbench.board.folds import known_folds
from fssbench.board.results import FILES, read_result
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.harness.record import RECORD_FILE, ROWS_FILE, Record
from fssbench.harness.rows import misplaced
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.statistics.intervals import score_intervals

TOLERANCE = 1e-6
# An interval comes from floating-point comparisons of replicates with the score, which another
# machine's linear algebra may decide otherwise; it moves the bounds by less than this.
INTERVAL_TOLERANCE = 0.01

_ABSOLUTE = re.compile(r"/|~/|\\\\|[A-Za-z]:[\\/]|file:")
_log = logging.getLogger(__name__)


def problems(folder: Path, *, intervals: bool = True) -> list[str]:
    """Why the result in a folder cannot be trusted, one line each; empty when all of it fits.

    The scores, the per-class scores and the intervals are computed anew from the rows.

    Args:
        folder: holds the result's files.
        intervals: False spares the intervals, which take the longest.
    """
    for name in FILES:
        if not (folder / name).is_file():
            return [f"{folder / name}: missing; a result is {', '.join(FILES)}"]
    try:
        result = read_result(folder)
        manifest, rows = result.manifest(), result.rows()
    except FssbenchError as error:
        return [str(error)]
    record, path = result.record, folder / RECORD_FILE
    found = [f"{path}: {problem}" for problem in _facts(record, manifest)]
    bad_rows = rows_problem(rows, manifest)
    if bad_rows:
        return [*found, f"{folder / ROWS_FILE}: {bad_rows}; evaluate again"]
    found += [f"{path}: {problem}" for problem in _scores(record, manifest, rows)]
    if intervals:
        found += [f"{path}: {problem}" for problem in _intervals(record, rows)]
    return found


def _facts(record: Record, manifest: Manifest) -> Iterator[str]:
    """What the record says of its episodes against the manifest, and what no record may hold."""
    folds = known_folds(record.dataset.name)
    if folds is not None and record.fold >= folds:
        # It would be a column of the table, and every other row would lack it.
        yield f"fold is {record.fold}, but {record.dataset.name} has {folds} (from 0)"
    class_ids = {class_id for class_id, _ in manifest.classes}
    pairs = {
        "protocol": (record.protocol, manifest.protocol),
        "fold": (record.fold, manifest.fold),
        "shots": (record.shots, manifest.shots),
        "seed": (record.seed, manifest.seed),
        "dataset.name": (record.dataset.name, manifest.dataset),
        "dataset.split": (record.dataset.split, manifest.split),
        "dataset.fingerprint": (record.dataset.fingerprint, manifest.fingerprint),
        "manifest.digest": (record.manifest.digest, manifest.digest),
        "manifest.episodes": (record.manifest.episodes, len(manifest.episodes)),
        "manifest.limit": (record.manifest.limit, manifest.limit),
        "manifest.dropped": (record.manifest.dropped, tuple(name for _, name in manifest.dropped)),
    }
    for key, (said, true) in pairs.items():
        if said != true:
            yield f"{key} is {_brief(said)}, the manifest says {_brief(true)}; evaluate again"
    if not set(manifest.class_ids) <= set(record.manifest.classes) <= class_ids:
        yield "manifest.classes are not the manifest's; evaluate again"
    cost = attrs.asdict(record.cost)
    for key, value in cost.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            yield f"cost.{key} is {value}; it must be a number from 0"
    for key in _absolute_paths(cattrs.unstructure(record)):
        yield f"{key} is an absolute path; records are public: evaluate again with a name instead"


def _absolute_paths(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _absolute_paths(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _absolute_paths(item, f"{key}[{index}]")
    elif isinstance(value, str) and _ABSOLUTE.match(value):
        yield _brief(key)


def rows_problem(rows: pandas.DataFrame, manifest: Manifest) -> str:
    """Why rows cannot be those of a manifest's episodes, or "" when they can."""
    missing = [name for name in IoU.columns if name not in rows.columns]
    if missing:
        return f"these rows lack the column {', '.join(missing)}"
    wrong = misplaced(rows, manifest)
    if wrong:
        return wrong
    for name in IoU.columns:
        if rows[name].dtype != "int64" or (rows[name] < 0).any():
            return f"column {name} must be whole numbers from 0"
    for name in rows.columns.drop("query"):
        if not pandas.api.types.is_numeric_dtype(rows[name]):
            return f"column {_brief(name)} must be numbers"
    for part in ("fg", "bg"):
        if (rows[f"intersection_{part}"] > rows[f"union_{part}"]).any():
            return f"column intersection_{part} is larger than union_{part}"
    return ""


def _scores(record: Record, manifest: Manifest, rows: pandas.DataFrame) -> Iterator[str]:
    """What the record says of its rows."""
    iou = IoU()
    plugins: dict[str, float] = {}
    for metric in measured_metrics(rows).values():
        plugins.update(metric.summarise(rows, manifest.class_ids))
    for name, true in {**plugins, **iou.summarise(rows)}.items():
        if name not in record.scores and name in ("miou", "fb_iou", "episode_miou"):
            yield f"scores.{name} is missing; evaluate again, with the metric iou"
        elif name in record.scores and not _near(record.scores[name], true):
            said = f"{record.scores[name]:.6f}"
            yield f"scores.{name} is {said}, the rows give {true:.6f}; evaluate again"
    names = dict(manifest.classes)
    table = iou.per_class(rows)
    if [entry.class_id for entry in record.per_class] != list(table.index):
        yield "per_class has other classes than the rows; evaluate again"
        return
    for entry in record.per_class:
        line = table.loc[entry.class_id]
        fits = (entry.name, entry.episodes) == (names.get(entry.class_id), line["episodes"])
        near = _near(entry.iou, line["iou"]) and _near(entry.background_iou, line["background_iou"])
        if not (fits and near):
            yield f"per_class of class {entry.class_id} is not what the rows give; evaluate again"


def _intervals(record: Record, rows: pandas.DataFrame) -> Iterator[str]:
    for name, (low, high) in score_intervals([rows]).items():
        said_low, said_high = record.intervals.get(name, (math.nan, math.nan))
        if not (
            _near(said_low, low, INTERVAL_TOLERANCE) and _near(said_high, high, INTERVAL_TOLERANCE)
        ):
            yield (
                f"intervals.{name} is {said_low:.4f} to {said_high:.4f}, the rows give {low:.4f} "
                f"to {high:.4f}; evaluate again"
            )


def measured_metrics(rows: pandas.DataFrame) -> dict[str, Metric]:
    """The installed metrics whose columns the rows have, by name."""
    try:
        from fssbench import registry
        from fssbench.specs import MetricSpec

        specs = registry.registry().specs(MetricSpec).values()
    except (ImportError, FssbenchError):
        return {}
    metrics: dict[str, Metric] = {}
    for spec in specs:
        try:
            metric: Metric = registry.load(spec)(**spec.arguments)
        except FssbenchError as error:
            _log.info("scores of %s are not verified: %s", spec.name, error)
            continue
        if set(metric.columns) <= set(rows.columns):
            metrics[spec.name] = metric
    return metrics


def _near(said: float, true: float, tolerance: float = TOLERANCE) -> bool:
    # A NaN must fail, so not the other way round.
    return abs(said - true) <= tolerance


def _brief(value: Any) -> str:
    text = " ".join(ascii(value).strip("'").split()) or "empty"
    return text if len(text) <= 70 else f"{text[:67]}…"
