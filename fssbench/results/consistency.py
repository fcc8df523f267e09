"""Do the rows of a run fit its manifest, and its record's scores the rows?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.results.record import Record
from fssbench.results.rows import misplaced

TOLERANCE = 1e-6
"""Difference of two scores in percent that is none: rounding of sums in another order."""
MOST_PIXELS = 2**31 - 1
"""No image has more; sums of such counts, one for each row that can be read, fit 64 bits."""


def rows_problem(rows: pandas.DataFrame, manifest: Manifest) -> str:
    """Why rows cannot be those of a manifest's episodes, or "" when they can."""
    missing = [name for name in IoU.columns if name not in rows.columns]
    if missing:
        return f"these rows lack the column {', '.join(missing)}"
    wrong = misplaced(rows, manifest)
    if wrong:
        return wrong
    for name in IoU.columns:
        counts = rows[name]
        if counts.dtype != "int64" or not counts.between(0, MOST_PIXELS).all():
            return f"column {name} must be whole numbers from 0 to {MOST_PIXELS}"
    for part in ("fg", "bg"):
        if (rows[f"intersection_{part}"] > rows[f"union_{part}"]).any():
            return f"column intersection_{part} is larger than union_{part}"
    return ""


def score_problems(
    record: Record, manifest: Manifest, rows: pandas.DataFrame, metrics: Iterable[Metric] = ()
) -> Iterator[str]:
    """What a record says and its rows do not, a clause each; intervals, which take long, are not.

    Args:
        record: whose IoU scores, and those of each class, are computed anew.
        manifest: its manifest.
        rows: its rows, which must have no `rows_problem`.
        metrics: whose scores are computed anew too, where the record has them.
    """
    iou = IoU()
    plugins: dict[str, float] = {}
    for metric in metrics:
        plugins.update(metric.summarise(rows, manifest.class_ids))
    for name, true in {**plugins, **iou.summarise(rows)}.items():
        if name not in record.scores and name in ("miou", "fb_iou", "episode_miou"):
            yield f"scores.{name} is missing"
        elif name in record.scores and not near(record.scores[name], true):
            yield f"scores.{name} is {record.scores[name]:.6f}, the rows give {true:.6f}"
    names = dict(manifest.classes)
    table = iou.per_class(rows)
    if [entry.class_id for entry in record.per_class] != list(table.index):
        yield "per_class has other classes than the rows"
        return
    for entry in record.per_class:
        line = table.loc[entry.class_id]
        fits = (entry.name, entry.episodes) == (names.get(entry.class_id), line["episodes"])
        close = near(entry.iou, line["iou"]) and near(entry.background_iou, line["background_iou"])
        if not (fits and close):
            yield f"per_class of class {entry.class_id} is not what the rows give"


def near(said: float, true: float, tolerance: float = TOLERANCE) -> bool:
    """Whether two numbers are equal for all that can be asked; NaN is not."""
    return abs(said - true) <= tolerance  # not the other way round, which would let NaN pass
