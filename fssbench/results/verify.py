"""Verification of a result: record, rows and manifest must agree."""

from __future__ import annotations

import logging
import math
import operator
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import cattrs
import pandas

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.results.privacy import walk
from fssbench.results.record import RECORD_FILE, ROWS_FILE, Record
from fssbench.results.result import FILES, Result, read_result
from fssbench.results.rows import confusion_columns, misplaced
from fssbench.specs import DatasetSpec, MetricSpec
from fssbench.statistics.intervals import score_intervals
from fssbench.statistics.sums import score_names

TOLERANCE = 1e-6
"""Tolerated difference of scores in percent: rounding of sums in another order."""
INTERVAL_TOLERANCE = 0.01
"""Tolerated difference of interval bounds in percent.

BCa counts the bootstrap replicates below the score; linear algebra of another machine may round
these comparisons differently.
"""
MOST_PIXELS = 2**31 - 1
"""Maximum number of pixels of an image; sums over all rows of the largest table fit 64 bits."""

# Attributes of a record that its manifest has under the same names.
_COPIED = (
    *("protocol", "fold", "shots", "seed", "dataset.split", "dataset.fingerprint"),
    *("manifest.digest", "manifest.limit", "ways"),
)
_ABSOLUTE = re.compile(r"/|~/|\\\\|[A-Za-z]:[\\/]|file:")
_log = logging.getLogger(__name__)


def problems(folder: Path, *, intervals: bool = True) -> list[str]:
    """Return the problems of the result in a folder, one line each.

    The scores, the per-class scores and the intervals are computed again from the rows.

    Args:
        folder: folder of the result's files.
        intervals: False skips the intervals, which take most of the time.
    """
    return verified_rows(folder, intervals=intervals)[0]


def verified_rows(
    folder: Path, *, intervals: bool = True
) -> tuple[list[str], pandas.DataFrame | None]:
    """Return the problems of the result in a folder, and its rows if they can be read.

    Args:
        folder: folder of the result's files.
        intervals: False skips the intervals, which take most of the time.
    """
    for name in FILES:
        if not (folder / name).is_file():
            return [f"{folder / name}: missing; a result is {', '.join(FILES)}"], None
    try:
        result = read_result(folder)
        manifest, rows = result.manifest(), result.rows()
    except FssbenchError as error:
        return [str(error)], None
    return examine(result, manifest, rows, intervals=intervals)[0], rows


def examine(
    result: Result, manifest: Manifest, rows: pandas.DataFrame, *, intervals: bool = True
) -> tuple[list[str], bool]:
    """Compare record, manifest and rows of a result.

    Args:
        result: the result.
        manifest: its manifest.
        rows: its rows.
        intervals: False skips the intervals, which take most of the time.

    Returns:
        The problems, one line each, and True if the rows are those of the manifest.
    """
    record, path = result.record, result.folder / RECORD_FILE
    found = [f"{path}: {problem}" for problem in _facts(record, manifest)]
    if bad_rows := rows_problem(rows, manifest):
        return [*found, f"{result.folder / ROWS_FILE}: {bad_rows}; evaluate again"], False
    wrong = [*score_problems(record, manifest, rows, measured_metrics(rows).values())]
    if intervals:
        wrong += _intervals(record, rows)
    return [*found, *(f"{path}: {problem}; evaluate again" for problem in wrong)], True


def rows_problem(rows: pandas.DataFrame, manifest: Manifest) -> str:
    """Return the reason why rows cannot be those of a manifest's episodes, or ""."""
    if missing := [name for name in IoU.columns if name not in rows.columns]:
        return f"these rows lack the column {', '.join(missing)}"
    if wrong := misplaced(rows, manifest):
        return wrong
    for name in IoU.columns:
        counts = rows[name]
        if counts.dtype != "int64" or not counts.between(0, MOST_PIXELS).all():
            return f"column {name} must be whole numbers from 0 to {MOST_PIXELS}"
    for name in confusion_columns(manifest.ways):
        if name not in rows.columns:
            return f"these rows lack the column {name}"
        if rows[name].dtype != "int64" or not rows[name].between(0, MOST_PIXELS).all():
            return f"column {name} must be whole numbers from 0 to {MOST_PIXELS}"
    for way in range(1, manifest.ways + 1) if manifest.ways > 1 else ():
        own = rows[rows["way"] == way]
        if (own["intersection_fg"] != own[f"predicted_way{way}"]).any():
            return f"column predicted_way{way} is not intersection_fg in the rows of way {way}"
    if manifest.ways > 1 and (wrong := _confusion_problem(rows, manifest.ways)):
        return wrong
    for part in ("fg", "bg"):
        if (rows[f"intersection_{part}"] > rows[f"union_{part}"]).any():
            return f"column intersection_{part} is larger than union_{part}"
    return ""


def _confusion_problem(rows: pandas.DataFrame, ways: int) -> str:
    """Return the reason why confusion counts cannot belong to the other counts, or ""."""
    counts = rows[confusion_columns(ways)].to_numpy().reshape(-1, ways, ways + 1)
    inter, union, back, back_union = (
        rows[name].to_numpy().reshape(-1, ways)
        for name in ("intersection_fg", "union_fg", "intersection_bg", "union_bg")
    )
    if (back != back[:, :1]).any() or (back_union != back_union[:, :1]).any():
        return "the counts of background differ between the rows of an episode"
    # Pixels of background by predicted way: those of a way that are in no confusion count.
    stray = union - counts.sum(2) - counts[..., 1:].sum(1) + inter
    rest = back_union[:, 0] - back[:, 0] - counts[..., 0].sum(1)
    if (stray < 0).any() or (stray.sum(1) != rest).any():
        return "the confusion counts of an episode do not fit its intersections and unions"
    return ""


def score_problems(
    record: Record, manifest: Manifest, rows: pandas.DataFrame, metrics: Iterable[Metric] = ()
) -> Iterator[str]:
    """Yield a clause for each score of a record that differs from the rows, except intervals.

    Args:
        record: record with the IoU scores of all classes and of each class.
        manifest: its manifest.
        rows: its rows, which must have no `rows_problem`.
        metrics: further metrics, compared if the record has their scores.
    """
    iou = IoU()
    expected: dict[str, float] = {}
    for metric in metrics:
        if type(metric) is not IoU:
            expected |= metric.summarise(rows, manifest.class_ids)
    for name, true in {**expected, **iou.summarise(rows)}.items():
        if name in record.scores:
            if not _close(record.scores[name], true):
                yield f"scores.{name} is {record.scores[name]:.6f}, the rows give {true:.6f}"
        elif name in score_names(rows):
            yield f"scores.{name} is missing"
    names = dict(manifest.classes)
    table = iou.per_class(rows)
    if [entry.class_id for entry in record.per_class] != list(table.index):
        yield "per_class has other classes than the rows"
        return
    for entry in record.per_class:
        line = table.loc[entry.class_id]
        same = (entry.name, entry.episodes) == (names.get(entry.class_id), line["episodes"])
        scores = (entry.iou, line["iou"]), (entry.background_iou, line["background_iou"])
        if not (same and all(_close(*pair) for pair in scores)):
            yield f"per_class of class {entry.class_id} is not what the rows give"


def measured_metrics(rows: pandas.DataFrame) -> dict[str, Metric]:
    """Return the installed metrics whose columns the rows have, by name."""
    metrics: dict[str, Metric] = {}
    for spec in registry.registry().specs(MetricSpec).values():
        try:
            metric: Metric = registry.load(spec)(**spec.arguments)
        except FssbenchError as error:
            _log.info("scores of %s are not verified: %s", spec.name, error)
            continue
        if set(metric.columns) <= set(rows.columns):
            metrics[spec.name] = metric
    return metrics


def known_folds(dataset: str) -> int | None:
    """Return the number of folds that the class of a registered dataset declares.

    None for a dataset that is not installed, and for one whose class declares none: `Dataset`'s
    own 1 is then only a default, which an object may replace.
    """
    try:
        found = registry.load(registry.registry().get(DatasetSpec, dataset))
    except FssbenchError:
        return None
    declared = (vars(base).get("folds") for base in getattr(found, "__mro__", ())
                if base is not Dataset)  # fmt: skip
    return next((folds for folds in declared if isinstance(folds, int)), None)


def _facts(record: Record, manifest: Manifest) -> Iterator[str]:
    """Yield differences between a record and its manifest, and values that no record may have."""
    folds = known_folds(record.dataset.name)
    if folds is not None and record.fold >= folds:
        # The fold would be a column of the table, which all other rows lack.
        yield f"fold is {record.fold}, but {record.dataset.name} has {folds} (from 0)"
    trues = {key: getattr(manifest, key.rpartition(".")[2]) for key in _COPIED}
    trues |= {
        "dataset.name": manifest.dataset,
        "manifest.episodes": len(manifest.episodes),
        "manifest.dropped": tuple(name for _, name in manifest.dropped),
    }
    for key, true in trues.items():
        recorded = operator.attrgetter(key)(record)
        if recorded != true:
            yield f"{key} is {_brief(recorded)}, the manifest has {_brief(true)}; evaluate again"
    if not set(manifest.class_ids) <= set(record.manifest.classes) <= dict(manifest.classes).keys():
        yield "manifest.classes are not the manifest's; evaluate again"
    for key, value in attrs.asdict(record.cost).items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            yield f"cost.{key} is {value}; it must be a number from 0"
    for key, value in walk(cattrs.unstructure(record)):
        if isinstance(value, str) and _ABSOLUTE.match(value):
            yield f"{_brief(key)} is an absolute path; records are public: evaluate with a name"


def _intervals(record: Record, rows: pandas.DataFrame) -> Iterator[str]:
    for name, true in score_intervals([rows]).items():
        recorded = record.intervals.get(name, (math.nan, math.nan))
        if not all(map(_close, recorded, true, [INTERVAL_TOLERANCE] * 2)):
            yield (
                f"intervals.{name} is {recorded[0]:.4f} to {recorded[1]:.4f}, the rows give "
                f"{true[0]:.4f} to {true[1]:.4f}"
            )


def _close(recorded: float, true: float, tolerance: float = TOLERANCE) -> bool:
    """Return True if two numbers differ by at most `tolerance`; NaN is close to nothing."""
    return abs(recorded - true) <= tolerance  # False for NaN


def _brief(value: Any) -> str:
    text = " ".join(ascii(value).strip("'").split()) or "empty"
    return text if len(text) <= 70 else f"{text[:67]}…"
