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

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.metrics.metric import Metric
from fssbench.results.consistency import near, rows_problem, score_problems
from fssbench.results.record import RECORD_FILE, ROWS_FILE, Record
from fssbench.results.result import FILES, Result, read_result
from fssbench.specs import DatasetSpec
from fssbench.statistics.intervals import score_intervals

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
    return examine(result, manifest, rows, intervals=intervals)[0]


def examine(
    result: Result, manifest: Manifest, rows: pandas.DataFrame, *, intervals: bool = True
) -> tuple[list[str], bool]:
    """What of a result does not fit the rest of it.

    Args:
        result: the result.
        manifest: its manifest.
        rows: its rows.
        intervals: False spares the intervals, which take the longest.

    Returns:
        Its problems, one line each, and whether the rows are those of the manifest at all.
    """
    record, path = result.record, result.folder / RECORD_FILE
    found = [f"{path}: {problem}" for problem in _facts(record, manifest)]
    bad_rows = rows_problem(rows, manifest)
    if bad_rows:
        return [*found, f"{result.folder / ROWS_FILE}: {bad_rows}; evaluate again"], False
    metrics = measured_metrics(rows).values()
    found += [
        f"{path}: {problem}; evaluate again"
        for problem in score_problems(record, manifest, rows, metrics)
    ]
    if intervals:
        found += [f"{path}: {problem}" for problem in _intervals(record, rows)]
    return found, True


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


def _intervals(record: Record, rows: pandas.DataFrame) -> Iterator[str]:
    for name, (low, high) in score_intervals([rows]).items():
        said_low, said_high = record.intervals.get(name, (math.nan, math.nan))
        if not (
            near(said_low, low, INTERVAL_TOLERANCE) and near(said_high, high, INTERVAL_TOLERANCE)
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


def _brief(value: Any) -> str:
    text = " ".join(ascii(value).strip("'").split()) or "empty"
    return text if len(text) <= 70 else f"{text[:67]}…"


def known_folds(dataset: str) -> int | None:
    """Return the number of folds that the class of a registered dataset declares.

    None for a dataset that is not installed, and for one whose class declares none: `Dataset`'s
    own 1 is then only a default, which an object may replace.
    """
    try:
        found = registry.load(registry.registry().get(DatasetSpec, dataset))
    except FssbenchError:
        return None
    bases = [base for base in getattr(found, "__mro__", ()) if base is not Dataset]
    declared = [vars(base)["folds"] for base in bases if isinstance(vars(base).get("folds"), int)]
    return declared[0] if declared else None
