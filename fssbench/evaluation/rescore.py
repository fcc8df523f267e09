"""Scoring a finished run by further metrics: from its rows, or from the masks that it kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import pandas

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.data.geometry import Geometry
from fssbench.data.index import with_progress
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.evaluation.measure import measure_masks, table_of
from fssbench.files import write_atomically
from fssbench.inference.chunk_loader import target_of
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.results.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record, folder_of
from fssbench.results.rows import misplaced, read_rows
from fssbench.specs import MetricSpec, ProtocolSpec
from fssbench.statistics.intervals import score_intervals
from fssbench.statistics.resampled import resampled_intervals

Source = Literal["rows", "predictions"]
SCORES_FORMAT = 1
_KEY = "fssbench_scores"
_COUNTS = IoU.columns


@attrs.frozen(kw_only=True)
class MetricScores:
    """What one metric says of a run.

    Attributes:
        metric: its registered name.
        source: what it was computed from.
        scores: by name.
        intervals: 95 % confidence intervals (low, high), by bootstrap over query images.
    """

    metric: str
    source: Source
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


@attrs.frozen(kw_only=True)
class Scores:
    """What some metrics say of a run; the run itself is as it was.

    Attributes:
        folder: the run directory.
        record: its record.
        metrics: in the order that was asked for.
    """

    folder: Path
    record: Record
    metrics: tuple[MetricScores, ...]

    def to_fields(self) -> dict[str, Any]:
        """Everything as JSON has it; of which run is told by names and digests, not by paths."""
        record = self.record
        return {
            _KEY: SCORES_FORMAT,
            "matcher": record.matcher,
            "backbone": record.backbone,
            "checkpoint": record.checkpoint.sha256 if record.checkpoint else None,
            "protocol": record.protocol,
            "fold": record.fold,
            "shots": record.shots,
            "seed": record.seed,
            "manifest": record.manifest.digest,
            "predictions": record.predictions,
            "created": record.created,
            "metrics": {
                each.metric: {
                    "source": each.source,
                    "scores": dict(each.scores),
                    "intervals": {name: list(ends) for name, ends in each.intervals.items()},
                }
                for each in self.metrics
            },
        }


def score_run(
    path: Path,
    names: Sequence[str],
    *,
    data_root: Path | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> Scores:
    """Score a finished run by metrics.

    A metric whose columns the rows hold is summarised from them. Any other measures the masks that
    the run kept against the dataset's annotations, which are read again.

    Args:
        path: a run directory, or the ``record.json`` in it.
        names: names of metrics.
        data_root: folder of the dataset, where annotations are needed.
        data_options: the dataset's own options, as the evaluation had them.

    Raises:
        FssbenchError: there is no finished run; a metric is not registered, needs masks that were
            not kept, or gives no number; files of the run do not belong together; or the dataset is
            not the one of the evaluation.
    """
    folder = folder_of(path)
    record = Record.read(folder / RECORD_FILE)
    manifest = Manifest.read(folder / MANIFEST_FILE)
    rows = read_rows(folder / ROWS_FILE)
    if manifest.digest != record.manifest.digest:
        raise FssbenchError(f"{folder / MANIFEST_FILE}: these are not the episodes of the record")
    wrong = misplaced(rows, manifest)
    if wrong:
        raise FssbenchError(f"{folder / ROWS_FILE}: {wrong}")
    known = registry.registry()
    metrics = {known.get(MetricSpec, name).name: build.metric(name) for name in names}
    if not metrics:
        listed = ", ".join(known.specs(MetricSpec))
        raise FssbenchError(f"--metric: name at least one metric; registered: {listed}")
    lacking = {name: m for name, m in metrics.items() if not set(m.columns) <= set(rows.columns)}
    table = rows
    if lacking:
        predictions = _kept(folder, record, manifest, lacking)
        dataset = _dataset(record, manifest, data_root, data_options or {})
        measured = _measured(
            record, manifest, rows, predictions, dataset, tuple(lacking.values()), folder
        )
        table = rows.assign(**{name: measured[name] for name in measured.columns})
    return Scores(
        folder=folder,
        record=record,
        metrics=tuple(
            _summary(name, metric, table, manifest, "predictions" if name in lacking else "rows")
            for name, metric in metrics.items()
        ),
    )


def write_scores(scores: Scores, path: Path) -> None:
    """Write scores as JSON, by rename.

    Raises:
        FssbenchError: the file is there and is none of scores, so a record stays as it is; or it
            cannot be written.
    """
    check_scores_file(path)
    text = json.dumps(scores.to_fields(), indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def check_scores_file(path: Path) -> None:
    """Raise an `FssbenchError` unless scores may be written there."""
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        fields = None
    if not isinstance(fields, dict) or _KEY not in fields:
        raise FssbenchError(f"--out {path}: this is there and no file of scores; choose another")


def _kept(
    folder: Path, record: Record, manifest: Manifest, lacking: Mapping[str, Metric]
) -> Predictions:
    if not record.predictions:
        columns = ", ".join(name for metric in lacking.values() for name in metric.columns)
        raise FssbenchError(
            f"{folder}: metric {', '.join(lacking)} needs predictions: the rows hold no {columns}, "
            "and this run kept no masks; run the same fssbench evaluate command again with "
            "--save-predictions, and score the run directory that it names"
        )
    path = folder / PREDICTIONS_FILE
    predictions = read_predictions(path, record.predictions, len(manifest.episodes))
    if predictions.manifest != manifest.digest:
        raise FssbenchError(f"{path}: these predictions are of other episodes than the record")
    return predictions


def _dataset(
    record: Record, manifest: Manifest, root: Path | None, options: Mapping[str, Any]
) -> Dataset:
    dataset = build.dataset(record.dataset.name, root, **options)
    manifest.check_annotations(dataset)
    return dataset


def _measured(
    record: Record,
    manifest: Manifest,
    rows: pandas.DataFrame,
    predictions: Predictions,
    dataset: Dataset,
    metrics: Sequence[Metric],
    folder: Path,
) -> pandas.DataFrame:
    """The metrics' columns, in manifest order."""
    protocol = registry.registry().get(ProtocolSpec, record.protocol)
    geometry = _geometry(record)
    path = folder / PREDICTIONS_FILE
    columns = []
    # Pixel counts tell whether masks, annotations and rows belong together.
    asked = (IoU(), *metrics)
    title = f"Measuring {len(manifest.episodes)} kept masks"
    for episode in with_progress(manifest.episodes, title, len(manifest.episodes)):
        target = target_of(episode, dataset, geometry, record.score_size, protocol.void)
        try:
            mask = predictions.mask(episode.index, *target.shape)
        except FssbenchError as error:
            raise FssbenchError(f"{path}: {error}; evaluate again") from error
        columns.append(measure_masks(asked, [mask], [target]))
        for name in _COUNTS:
            said, now = int(rows[name].iloc[episode.index]), int(columns[-1][name])
            if said != now:
                raise FssbenchError(
                    f"{path}: the mask of episode {episode.index} has {name} {now}, its row says "
                    f"{said}; masks and rows are of different runs: evaluate again"
                )
    table = table_of(manifest.episodes, columns)
    wanted: pandas.DataFrame = table.loc[:, [name for metric in metrics for name in metric.columns]]
    return wanted


def _geometry(record: Record) -> Geometry:
    try:
        size, resize = record.features["size"], record.features["resize"]
        if not isinstance(size, int) or resize not in ("squash", "letterbox"):
            raise ValueError(resize)
    except (KeyError, ValueError) as error:
        raise FssbenchError(f"{RECORD_FILE}: features.size or features.resize is wrong") from error
    return Geometry(size, resize)


def _summary(
    name: str, metric: Metric, table: pandas.DataFrame, manifest: Manifest, source: Source
) -> MetricScores:
    scores = metric.summarise(table, manifest.class_ids)
    for score, value in scores.items():
        if not math.isfinite(value):
            raise FssbenchError(
                f"metric {name}: {score} is {value} for this run, which is no score"
            )
    if isinstance(metric, IoU):
        intervals = score_intervals([table])
    else:
        intervals = resampled_intervals(table, metric.summarise)
    return MetricScores(metric=name, source=source, scores=scores, intervals=intervals)
