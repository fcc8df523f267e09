"""Evaluate a matcher: from names to records."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs
import torch

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.episodes.loader import load_chunks
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.harness import cost
from fssbench.harness.environment import environment
from fssbench.harness.features import FeatureCache
from fssbench.harness.measure import chunks_of, measure_chunks
from fssbench.harness.pipeline import Pipeline, Precision, choose_device
from fssbench.harness.record import (
    CheckpointInfo,
    ClassScore,
    Cost,
    DatasetInfo,
    ManifestInfo,
    Record,
    Weights,
)
from fssbench.harness.run import Run
from fssbench.harness.rundir import RunDirectory
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.specs import BackboneSpec, MatcherSpec, ProtocolSpec
from fssbench.statistics.intervals import miou_interval

CACHE_BYTES = 2 << 30
"""Features that are kept in memory."""


@attrs.frozen(kw_only=True)
class Evaluation:
    """What `evaluate` is asked for; the command line's options, by the same names.

    Attributes:
        matcher: name of the method.
        backbone: name of its encoder.
        protocol: protocol id.
        data_root: folder of the dataset.
        data_options: the dataset's own options.
        folds: fold numbers; None for all.
        shots: K, each evaluated for itself.
        seeds: seeds of the manifest; benchmarks use 0.
        weights: of the encoder: ``pretrained``, ``random`` or a file.
        checkpoint: trained weights of the matcher.
        limit: only the first so many episodes of each manifest.
        out: folder for run directories.
        options: the matcher's own.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
        workers: loader processes; None for one less than the cores, at most 8.
        batch_size: episodes that are segmented at once.
        metrics: names of the metrics to measure, ``iou`` first.
    """

    matcher: str = "prototype"
    backbone: str = "tiny-resnet"
    protocol: str = "shapes/v1-1k"
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)
    folds: tuple[int, ...] | None = None
    shots: tuple[int, ...] = (1,)
    seeds: tuple[int, ...] = (0,)
    weights: str = "pretrained"
    checkpoint: Path | None = None
    limit: int | None = None
    out: Path = Path("runs")
    options: Mapping[str, Any] = attrs.field(factory=dict)
    device: str = "auto"
    precision: Precision = "fp32"
    workers: int | None = None
    batch_size: int = 1
    metrics: tuple[str, ...] = ("iou",)


@attrs.frozen(kw_only=True)
class Result:
    """One finished cell (fold, shots, seed) of an evaluation.

    Attributes:
        record: what was measured.
        folder: its run directory.
        fresh: whether this call measured anything, or the folder held the finished record already.
    """

    record: Record
    folder: Path
    fresh: bool


Observers = Callable[[Run], Sequence[object]]
"""Makes the observers (objects with hook methods) of one cell."""


def evaluate(
    evaluation: Evaluation | None = None, *, observers: Observers | None = None, **changes: Any
) -> list[Result]:
    """Evaluate a matcher on every asked-for fold, number of shots and seed.

    Each of them is a run directory of its own; one that was interrupted goes on, one that is
    finished is read.

    Args:
        evaluation: what to do; None for the embedded default.
        observers: makes further observers for each cell, e.g. a progress bar.
        changes: attributes of `Evaluation` to set, e.g. ``evaluate(matcher="prototype")``.

    Raises:
        FssbenchError: a name, option, file or dataset is not as it must be.
    """
    job = attrs.evolve(evaluation or Evaluation(), **changes)
    if job.batch_size < 1:
        raise FssbenchError(f"--batch-size must be at least 1, not {job.batch_size}")
    known = registry.registry()
    protocol = known.get(ProtocolSpec, job.protocol)
    dataset = build.dataset(protocol.dataset, job.data_root, **job.data_options)
    folds = tuple(range(dataset.folds)) if job.folds is None else job.folds
    manifests = [
        build_manifest(protocol, dataset, fold=fold, shots=shots, seed=seed, limit=job.limit)
        for fold in folds
        for shots in job.shots
        for seed in job.seeds
    ]
    checkpoint = None if job.checkpoint is None else read_checkpoint(job.checkpoint)
    job = attrs.evolve(
        job,
        matcher=known.get(MatcherSpec, job.matcher).name,
        backbone=known.get(BackboneSpec, job.backbone).name,
    )
    device = choose_device(job.device)
    backbone = build.backbone(job.backbone, job.weights)
    matcher = _matcher(job, backbone, checkpoint, manifests)
    pipeline = Pipeline(matcher, backbone, device=device, precision=job.precision)
    bench = _Bench(
        job=job,
        protocol=protocol,
        dataset=dataset,
        pipeline=pipeline,
        checkpoint=checkpoint,
        cache=FeatureCache(pipeline, CACHE_BYTES),
        metrics=tuple(build.metric(name) for name in job.metrics),
    )
    return [bench.run(manifest, observers or (lambda run: ())) for manifest in manifests]


@attrs.frozen(kw_only=True)
class _Bench:
    """What all cells of one call share."""

    job: Evaluation
    protocol: ProtocolSpec
    dataset: Dataset
    pipeline: Pipeline
    checkpoint: Checkpoint | None
    cache: FeatureCache
    metrics: tuple[Metric, ...]

    def run(self, manifest: Manifest, observers: Observers) -> Result:
        settings = self._settings()
        folder = self._folder(manifest, settings)
        identity = {**settings, "manifest": manifest.digest, "fingerprint": manifest.fingerprint}
        with RunDirectory(folder, identity, manifest) as directory:
            finished = directory.finished()
            if finished is not None:
                return Result(record=finished, folder=folder, fresh=False)
            chunks = chunks_of(manifest.episodes)
            left = {n: episodes for n, episodes in chunks.items() if n not in directory.done}
            run = Run(
                matcher=self.job.matcher,
                backbone=self.job.backbone,
                manifest=manifest,
                dataset=self.dataset,
                folder=folder,
                done=len(manifest.episodes) - sum(map(len, left.values())),
            )
            # The last one registered is called first: a chunk is in the journal before it is shown.
            with _registered([*observers(run), directory]) as hook:
                hook.fssbench_evaluation_started(run=run)
                self._measure(run, directory, left, hook)
                record = self._record(manifest, directory)
                directory.finish(record)
                hook.fssbench_evaluation_finished(run=run, record=record)
        return Result(record=record, folder=folder, fresh=True)

    def _measure(
        self, run: Run, directory: RunDirectory, left: Mapping[int, Any], hook: Any
    ) -> None:
        loaded = load_chunks(
            self.cache.plan(left),
            self.dataset,
            self.pipeline.geometry,
            score_size=self.protocol.score_size,
            workers=_workers(self.job.workers),
        )
        measured = measure_chunks(
            loaded, self.pipeline, self.cache, self.metrics, batch_size=self.job.batch_size
        )
        for data, rows, predictions, seconds in measured:
            directory.add_seconds(seconds)
            hook.fssbench_episodes_measured(
                run=run,
                chunk=data.task.chunk,
                episodes=data.task.episodes,
                rows=rows,
                predictions=predictions,
            )

    def _settings(self) -> dict[str, Any]:
        """Everything but the manifest that the rows depend on."""
        return {
            "matcher": self.job.matcher,
            "config": _config(self.pipeline.matcher),
            "checkpoint": None if self.checkpoint is None else self.checkpoint.sha256,
            "backbone": self.job.backbone,
            "weights": attrs.asdict(self.pipeline.backbone.weights),
            "metrics": list(self.job.metrics),
            "device": self.pipeline.device.type,
            "precision": self.job.precision,
            "batch_size": self.job.batch_size,
            "torch": torch.__version__,
        }

    def _folder(self, manifest: Manifest, settings: Mapping[str, Any]) -> Path:
        """``OUT/protocol/matcher--backbone--settings/fold0-1shot-seed0``.

        Readable, and no two methods, options, weights or data sets meet in one folder.
        """
        text = json.dumps([settings, manifest.fingerprint, manifest.limit], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:6]
        method = f"{self.job.matcher}--{self.job.backbone}--{key}"
        cell = f"fold{manifest.fold}-{manifest.shots}shot-seed{manifest.seed}"
        return self.job.out / re.sub(r"[^\w.+-]", "-", manifest.protocol) / method / cell

    def _record(self, manifest: Manifest, directory: RunDirectory) -> Record:
        rows = directory.rows()
        scores: dict[str, float] = {}
        for metric in self.metrics:
            scores.update(metric.summarise(rows, manifest.class_ids))
        table = IoU().per_class(rows, manifest.class_ids)
        backbone = self.pipeline.backbone
        return Record(
            protocol=manifest.protocol,
            fold=manifest.fold,
            shots=manifest.shots,
            seed=manifest.seed,
            dataset=DatasetInfo(
                name=manifest.dataset, split=manifest.split, fingerprint=manifest.fingerprint
            ),
            manifest=ManifestInfo(
                digest=manifest.digest,
                episodes=len(manifest.episodes),
                classes=manifest.class_ids,
                dropped=tuple(name for _, name in manifest.dropped),
                limit=manifest.limit,
            ),
            matcher=self.job.matcher,
            config=_config(self.pipeline.matcher),
            checkpoint=None
            if self.checkpoint is None
            else CheckpointInfo(
                name=self.checkpoint.name,
                sha256=self.checkpoint.sha256,
                header=self.checkpoint.header,
            ),
            backbone=self.job.backbone,
            weights=Weights(**attrs.asdict(backbone.weights)),
            features=cattrs.unstructure(self.pipeline.request),
            scores=scores,
            intervals={"miou": miou_interval([rows])},
            per_class=tuple(
                ClassScore(
                    class_id=class_id,
                    name=manifest.class_name(class_id),
                    episodes=int(table["episodes"][class_id]),
                    iou=float(table["iou"][class_id]),
                    background_iou=float(table["background_iou"][class_id]),
                )
                for class_id in manifest.class_ids
            ),
            cost=Cost(
                learnable_parameters=cost.learnable_parameters(self.pipeline),
                backbone_parameters=cost.backbone_parameters(self.pipeline),
                flops_per_episode=cost.flops_per_episode(self.pipeline, manifest.shots),
                seconds_per_episode=directory.seconds / len(manifest.episodes),
                peak_memory_mib=cost.peak_memory_mib(self.pipeline.device),
            ),
            environment={
                **environment(self.pipeline.device),
                "precision": self.job.precision,
                "batch_size": self.job.batch_size,
            },
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )


def _matcher(
    job: Evaluation,
    backbone: Backbone,
    checkpoint: Checkpoint | None,
    manifests: Sequence[Manifest],
) -> Matcher:
    """The matcher with its trained weights, after every check that they may be tested here."""
    if checkpoint is None:
        return build.matcher(job.matcher, backbone, **job.options)
    header = checkpoint.header
    for what, asked in (("matcher", job.matcher), ("backbone", job.backbone)):
        if header[what] != asked:
            raise FssbenchError(
                f"--checkpoint {checkpoint.name}: it was trained as {what} {header[what]!r}, not "
                f"{asked!r}"
            )
    for manifest in manifests:
        same_data = header.get("dataset") in (None, manifest.dataset)
        if same_data and header.get("fold") not in (None, manifest.fold):
            raise FssbenchError(
                f"--checkpoint {checkpoint.name}: it was trained for fold {header['fold']}, so it "
                f"has seen the classes of fold {manifest.fold}; evaluate --fold {header['fold']}"
            )
    matcher = build.matcher(job.matcher, backbone, **{**header["config"], **job.options})
    checkpoint.load_into(matcher)
    return matcher


@contextlib.contextmanager
def _registered(observers: Sequence[object]) -> Iterator[Any]:
    """Observers join the plugins for the length of a run."""
    manager = registry.registry().plugins.manager
    try:
        for observer in observers:
            manager.register(observer)
        yield manager.hook
    finally:
        for observer in observers:
            if manager.is_registered(observer):
                manager.unregister(observer)


def _config(matcher: Matcher) -> dict[str, Any]:
    config: dict[str, Any] = {} if matcher.config is None else cattrs.unstructure(matcher.config)
    return config


def _workers(asked: int | None) -> int:
    if asked is None:
        return max(0, min(8, (os.cpu_count() or 1) - 1))
    if asked < 0:
        raise FssbenchError(f"--workers must not be negative, not {asked}")
    return asked
