"""Evaluate a matcher: from names to records."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.episodes.loader import load_chunks
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest, check_lists
from fssbench.errors import FssbenchError
from fssbench.harness.evaluation import Evaluation
from fssbench.harness.features import FeatureCache
from fssbench.harness.maps import EpisodeMaps
from fssbench.harness.measure import chunks_of, measure_chunks
from fssbench.harness.pipeline import Pipeline, choose_device
from fssbench.harness.record import Record, trained_fold
from fssbench.harness.recording import config_of, make_record
from fssbench.harness.run import Run
from fssbench.harness.rundir import RunDirectory
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.metrics.metric import Metric
from fssbench.specs import BackboneSpec, MatcherSpec, ProtocolSpec

DEFAULT_MATCHER = "prototype"
DEFAULT_BACKBONE = "tiny-resnet"
CACHE_BYTES = 2 << 30
"""Features that are kept in memory."""


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
    checkpoint = None if job.checkpoint is None else read_checkpoint(job.checkpoint)
    job = _completed(job, checkpoint)
    known = registry.registry()
    protocol = known.get(ProtocolSpec, job.protocol)
    check_lists(protocol, job.lists)
    # Everything that a slip of the finger can spoil comes before everything that takes long.
    method = known.get(MatcherSpec, job.matcher)
    registry.configure(method, job.options)
    job = attrs.evolve(
        job, matcher=method.name, backbone=known.get(BackboneSpec, job.backbone).name
    )
    dataset = build.dataset(protocol.dataset, job.data_root, **job.data_options)
    folds = _folds(dataset, checkpoint) if job.folds is None else job.folds
    for fold in folds:
        dataset.check_fold(fold)
    device = choose_device(job.device)
    workers = _workers(job.workers)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, job, dataset.name, folds)
    weights = job.weights if checkpoint is None else checkpoint.backbone_weights(job.weights)
    backbone = build.backbone(job.backbone, weights)
    if checkpoint is not None:
        checkpoint.check_weights(backbone)
    matcher = _matcher(job, backbone, checkpoint)
    pipeline = Pipeline(matcher, backbone, device=device, precision=job.precision)
    manifests = [
        build_manifest(
            protocol,
            dataset,
            fold=fold,
            shots=shots,
            seed=seed,
            limit=job.limit,
            lists=job.lists,
        )
        for fold in folds
        for shots in job.shots
        for seed in job.seeds
    ]
    bench = _Bench(
        job=job,
        protocol=protocol,
        dataset=dataset,
        pipeline=pipeline,
        checkpoint=checkpoint,
        cache=FeatureCache(pipeline, CACHE_BYTES),
        metrics=tuple(build.metric(name) for name in job.metrics),
        workers=workers,
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
    workers: int

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
                maps=EpisodeMaps(dataset=self.dataset, pipeline=self.pipeline),
            )
            # The last one registered is called first: a chunk is in the journal before it is shown.
            with registry.observing([*observers(run), directory]) as hook:
                hook.fssbench_evaluation_started(run=run)
                self._measure(run, directory, left, hook)
                record = make_record(
                    self.job,
                    manifest,
                    self.pipeline,
                    self.checkpoint,
                    self.metrics,
                    score_size=self.protocol.score_size,
                    rows=directory.rows(),
                    seconds=directory.seconds,
                )
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
            void=self.protocol.void,
            workers=self.workers,
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
            "config": config_of(self.pipeline.matcher),
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


def _completed(job: Evaluation, checkpoint: Checkpoint | None) -> Evaluation:
    """What the user left open is as the checkpoint was trained, or the embedded default."""
    header = {} if checkpoint is None else checkpoint.header
    return attrs.evolve(
        job,
        matcher=job.matcher or header.get("matcher", DEFAULT_MATCHER),
        backbone=job.backbone or header.get("backbone", DEFAULT_BACKBONE),
    )


def _folds(dataset: Dataset, checkpoint: Checkpoint | None) -> tuple[int, ...]:
    """All folds, or the one whose classes a checkpoint has not seen."""
    trained = None if checkpoint is None else trained_fold(checkpoint.header, dataset.name)
    return tuple(range(dataset.folds)) if trained is None else (trained,)


def _check_checkpoint(
    checkpoint: Checkpoint, job: Evaluation, dataset: str, folds: Sequence[int]
) -> None:
    """A model must not be tested as something else, or on classes that it was trained on."""
    checkpoint.check_is("matcher", job.matcher)
    checkpoint.check_is("backbone", job.backbone)
    trained = trained_fold(checkpoint.header, dataset)
    for fold in folds:
        if trained not in (None, fold) and not job.any_fold:
            raise FssbenchError(
                f"--checkpoint {checkpoint.name}: it was trained for fold {trained}, so it has "
                f"seen the classes of fold {fold}; evaluate --fold {trained}, or give --any-fold "
                "for a record that never ranks"
            )


def _matcher(job: Evaluation, backbone: Backbone, checkpoint: Checkpoint | None) -> Matcher:
    """The matcher, with its trained weights and the options that it was trained with."""
    if checkpoint is None:
        return build.matcher(job.matcher, backbone, **job.options)
    matcher = build.matcher(job.matcher, backbone, **{**checkpoint.header["config"], **job.options})
    checkpoint.load_into(matcher)
    return matcher


def _workers(asked: int | None) -> int:
    return max(0, min(8, (os.cpu_count() or 1) - 1)) if asked is None else asked
