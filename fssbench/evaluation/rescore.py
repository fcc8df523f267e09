"""Scoring of a finished run with further metrics, from its rows or its saved masks."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
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
from fssbench.evaluation.measure import concatenated, measure_masks, table_of
from fssbench.files import write_atomically
from fssbench.inference.chunk_loader import target_of
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.results.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE, ROWS_FILE, Record, folder_of
from fssbench.results.rows import misplaced, read_rows, rows_of
from fssbench.specs import MetricSpec, ProtocolSpec
from fssbench.statistics.intervals import score_intervals
from fssbench.statistics.resampled import resampled_intervals

Source = Literal["rows", "predictions"]
SCORES_FORMAT = 1
_KEY = "fssbench_scores"


@attrs.frozen(kw_only=True)
class MetricScores:
    """Scores of one metric for a run.

    Attributes:
        metric: registered name of the metric.
        source: data that the scores were computed from.
        scores: scores by name.
        intervals: 95 % confidence intervals (low, high), by bootstrap over query images.
    """

    metric: str
    source: Source
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]


@attrs.frozen(kw_only=True)
class Scores:
    """Scores of several metrics for a run, which is not modified.

    Attributes:
        folder: run directory.
        record: record of the run.
        metrics: scores of each metric, in the requested order.
    """

    folder: Path
    record: Record
    metrics: tuple[MetricScores, ...]

    def to_fields(self) -> dict[str, Any]:
        """Return JSON values; the run is identified by names and digests, not by paths."""
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
                each.metric: attrs.asdict(each, filter=lambda field, _: field.name != "metric")
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
    """Score a finished run with metrics.

    If the rows contain the columns of a metric, its scores are summarised from them. Otherwise the
    saved masks are measured against the annotations of the dataset, which are read again.

    Args:
        path: run directory, or the ``record.json`` in it.
        names: names of metrics.
        data_root: folder of the dataset, if annotations are needed.
        data_options: options of the dataset, as in the evaluation.

    Raises:
        FssbenchError: there is no finished run; a metric is not registered, needs masks that were
            not saved, or is not finite; files of the run are inconsistent; or the dataset is not
            the one of the evaluation.
    """
    folder = folder_of(path)
    record = Record.read(folder / RECORD_FILE)
    manifest = Manifest.read(folder / MANIFEST_FILE)
    rows = read_rows(folder / ROWS_FILE)
    if manifest.digest != record.manifest.digest:
        raise FssbenchError(f"{folder / MANIFEST_FILE}: is not the manifest of the record")
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
        predictions = _predictions(folder, record, manifest, lacking)
        dataset = build.protocol_dataset(record.protocol, data_root, **data_options or {})
        manifest.check_annotations(dataset)
        measured = _measured(record, manifest, rows, predictions, dataset, lacking.values(), folder)
        table = rows.assign(**measured)
    return Scores(
        folder=folder,
        record=record,
        metrics=tuple(
            MetricScores(
                metric=name,
                source="predictions" if name in lacking else "rows",
                scores=_finite_scores(name, metric, table, manifest),
                intervals=score_intervals([table])
                if isinstance(metric, IoU)
                else resampled_intervals(table, metric.summarise),
            )
            for name, metric in metrics.items()
        ),
    )


def write_scores(scores: Scores, path: Path) -> None:
    """Write scores as JSON, by rename.

    Raises:
        FssbenchError: the file exists and is not a scores file, e.g. a record; or it cannot be
            written.
    """
    check_scores_file(path)
    text = json.dumps(scores.to_fields(), indent=2, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def check_scores_file(path: Path) -> None:
    """Raise an `FssbenchError` if a path is taken by a file that is not a scores file."""
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        fields = None
    if not isinstance(fields, dict) or _KEY not in fields:
        raise FssbenchError(
            f"--out {path}: this file exists and is not a scores file; choose another"
        )


def _predictions(
    folder: Path, record: Record, manifest: Manifest, lacking: Mapping[str, Metric]
) -> Predictions:
    if not record.predictions:
        columns = ", ".join(name for metric in lacking.values() for name in metric.columns)
        raise FssbenchError(
            f"{folder}: metric {', '.join(lacking)} needs predictions: the rows have no column "
            f"{columns}, and this run saved no masks; run the same fssbench evaluate command again "
            "with --save-predictions, and score the run directory that it names"
        )
    path = folder / PREDICTIONS_FILE
    predictions = read_predictions(path, record.predictions, len(manifest.episodes))
    if predictions.manifest != manifest.digest:
        raise FssbenchError(f"{path}: these predictions belong to another manifest")
    return predictions


def _measured(
    record: Record, manifest: Manifest, rows: pandas.DataFrame, predictions: Predictions,
    dataset: Dataset, metrics: Collection[Metric], folder: Path,
) -> dict[str, pandas.Series]:  # fmt: skip
    """Return the metrics' columns by name, in manifest order."""
    void = registry.registry().get(ProtocolSpec, record.protocol).void
    geometry = _geometry(record)
    path = folder / PREDICTIONS_FILE
    columns = []
    # The pixel counts verify that masks, annotations and rows belong together.
    asked = (IoU(), *metrics)
    count = len(manifest.episodes)
    for episode in with_progress(manifest.episodes, f"Measuring {count} saved masks", count):
        target = target_of(episode, dataset, geometry, record.score_size, void)
        try:
            mask = predictions.mask(episode.index, *target.shape)
        except FssbenchError as error:
            raise FssbenchError(f"{path}: {error}; evaluate again") from error
        columns.append(measure_masks(asked, [mask], [target], manifest.ways))
        own = rows_of(rows, episode.index, manifest.ways)
        for name in IoU.columns:
            stored, now = own[name].tolist(), columns[-1][name].tolist()
            if stored != now:
                raise FssbenchError(
                    f"{path}: the mask of episode {episode.index} has {name} {_list(now)}, its row "
                    f"has {_list(stored)}; masks and rows are of different runs: evaluate again"
                )
    table = table_of(manifest.episodes, concatenated(columns))
    return {name: table[name] for metric in metrics for name in metric.columns}


def _list(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _geometry(record: Record) -> Geometry | None:
    if record.provenance:  # scored at the original size
        return None
    size, resize = record.features.get("size"), record.features.get("resize")
    if not isinstance(size, int) or resize not in ("squash", "letterbox"):
        raise FssbenchError(f"{RECORD_FILE}: features.size or features.resize is wrong")
    return Geometry(size, resize)


def _finite_scores(
    name: str, metric: Metric, table: pandas.DataFrame, manifest: Manifest
) -> dict[str, float]:
    scores = metric.summarise(table, manifest.class_ids)
    for score, value in scores.items():
        if not math.isfinite(value):
            raise FssbenchError(
                f"metric {name}: {score} is {value} for this run; scores must be finite"
            )
    return scores
