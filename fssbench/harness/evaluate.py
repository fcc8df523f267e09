"""Evaluate a matcher: from names to records."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pandas
import torch

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.episodes.loader import ChunkData, load_chunks
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest, check_lists
from fssbench.errors import FssbenchError
from fssbench.harness.chunks import chunks_of
from fssbench.harness.evaluation import Evaluation
from fssbench.harness.features import FeatureCache
from fssbench.harness.handout import HandOut
from fssbench.harness.maps import EpisodeMaps
from fssbench.harness.measure import Measured, measure_chunks
from fssbench.harness.memory import default_budget
from fssbench.harness.part import Part
from fssbench.harness.pipeline import Pipeline, choose_device
from fssbench.harness.ranks import Chunks, Measure, Team
from fssbench.harness.record import Record, trained_fold
from fssbench.harness.recording import config_of, make_record
from fssbench.harness.run import Run
from fssbench.harness.rundir import RunDirectory
from fssbench.harness.store import FeatureFiles
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.metrics.metric import Metric
from fssbench.specs import BackboneSpec, MatcherSpec, ProtocolSpec

DEFAULT_MATCHER = "prototype"
DEFAULT_BACKBONE = "tiny-resnet"


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
    evaluation: Evaluation | None = None,
    *,
    observers: Observers | None = None,
    team: Team | None = None,
    **changes: Any,
) -> list[Result]:
    """Evaluate a matcher on every asked-for fold, number of shots and seed.

    Each of them is a run directory of its own; one that was interrupted goes on, one that is
    finished is read.

    Args:
        evaluation: what to do; None for the embedded default.
        observers: makes further observers for each cell, e.g. a progress bar.
        team: the processes that share the work; None for what the evaluation or ``torchrun`` says.
        changes: attributes of `Evaluation` to set, e.g. ``evaluate(matcher="prototype")``.

    Returns:
        The cells; none in a process that only helps the first one.

    Raises:
        FssbenchError: a name, option, file or dataset is not as it must be.
    """
    job = attrs.evolve(evaluation or Evaluation(), **changes)
    team = team or Team.of(job)
    with team.threads():
        bench = prepare(team.placed(job))
        manifests = bench.manifests()
        if team.rank:
            for manifest in manifests:
                bench.help(manifest, team)
            return []
        try:
            return [bench.run(m, observers or (lambda run: ()), team, job) for m in manifests]
        finally:
            team.stop()


def prepare(job: Evaluation) -> Bench:
    """Make everything that an evaluation needs, and check what was asked for.

    Raises:
        FssbenchError: a name, option, file or dataset is not as it must be.
    """
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
    workers = _workers(job)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, job, dataset.name, folds)
    weights = job.weights if checkpoint is None else checkpoint.backbone_weights(job.weights)
    backbone = build.backbone(job.backbone, weights)
    if checkpoint is not None:
        checkpoint.check_weights(backbone)
    matcher = _matcher(job, backbone, checkpoint)
    pipeline = Pipeline(
        matcher, backbone, device=device, precision=job.precision, half=job.cache_half
    )
    return Bench(
        job=job,
        protocol=protocol,
        dataset=dataset,
        folds=folds,
        pipeline=pipeline,
        checkpoint=checkpoint,
        cache=_cache(job, pipeline, dataset),
        metrics=tuple(build.metric(name) for name in job.metrics),
        workers=workers,
    )


@attrs.frozen(kw_only=True)
class Bench:
    """What all cells of one call share.

    Attributes:
        job: what was asked for, with the names that the user left open.
        protocol: how episodes are made and scored.
        dataset: where images are.
        folds: which are evaluated.
        pipeline: matcher and backbone.
        checkpoint: the matcher's trained weights, if it has any.
        cache: features.
        metrics: what is measured.
        workers: loader processes.
    """

    job: Evaluation
    protocol: ProtocolSpec
    dataset: Dataset
    folds: Sequence[int]
    pipeline: Pipeline
    checkpoint: Checkpoint | None
    cache: FeatureCache
    metrics: tuple[Metric, ...]
    workers: int

    def manifests(self) -> list[Manifest]:
        """The cells that were asked for."""
        return [
            build_manifest(
                self.protocol,
                self.dataset,
                fold=fold,
                shots=shots,
                seed=seed,
                limit=self.job.limit,
                lists=self.job.lists,
            )
            for fold in self.folds
            for shots in self.job.shots
            for seed in self.job.seeds
        ]

    def place(self, manifest: Manifest) -> tuple[Path, dict[str, Any]]:
        """A cell's run directory, and everything that its rows depend on."""
        settings = self._settings()
        identity = {**settings, "manifest": manifest.digest, "fingerprint": manifest.fingerprint}
        return self._folder(manifest, settings), identity

    def run(
        self,
        manifest: Manifest,
        observers: Observers,
        team: Team | None = None,
        asked: Evaluation | None = None,
    ) -> Result:
        """Evaluate one cell, or go on with it, or read its record.

        Args:
            manifest: the episodes.
            observers: makes further observers.
            team: the processes that share the work; None for this one alone.
            asked: what the others are told to do, where the team starts them.
        """
        team = team or Team()
        folder, identity = self.place(manifest)
        keep = self.job.save_predictions
        with RunDirectory(folder, identity, manifest, keep_predictions=keep) as directory:
            finished = directory.finished()
            if finished is not None:
                return Result(record=finished, folder=folder, fresh=False)
            left = directory.left()
            if left:
                team.start(asked or self.job)
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
                measure = team.lead if team.count > 1 else _alone
                for part in measure(folder, left, self.parts):
                    directory.add_seconds(part.seconds)
                    hook.fssbench_episodes_measured(
                        run=run,
                        chunk=part.chunk,
                        episodes=part.episodes,
                        rows=part.rows,
                        predictions=part.predictions,
                    )
                record = self.record(
                    manifest,
                    directory.rows(),
                    seconds=directory.seconds,
                    predictions=directory.predictions_digest(),
                )
                directory.finish(record)
                hook.fssbench_evaluation_finished(run=run, record=record)
        return Result(record=record, folder=folder, fresh=True)

    def record(
        self, manifest: Manifest, rows: pandas.DataFrame, *, seconds: float, predictions: str
    ) -> Record:
        """Summarise a cell's rows.

        Args:
            manifest: the episodes.
            rows: one for each of them.
            seconds: what they took.
            predictions: digest of the masks that are kept, or "".
        """
        return make_record(
            self.job,
            manifest,
            self.pipeline,
            self.checkpoint,
            self.metrics,
            score_size=self.protocol.score_size,
            rows=rows,
            seconds=seconds,
            predictions=predictions,
        )

    def help(self, manifest: Manifest, team: Team) -> None:
        """Measure chunks of a cell for the first process of a team."""
        folder, _ = self.place(manifest)
        team.help_with(folder, chunks_of(manifest.episodes), self.parts)

    def parts(self, chunks: Chunks, shared: HandOut | None = None) -> Iterator[Part]:
        """Measure chunks in this order, as `measured` does."""
        for measured in self.measured(chunks, shared):
            yield Part.of(measured)

    def measured(self, chunks: Chunks, shared: HandOut | None = None) -> Iterator[Measured]:
        """Measure chunks of episodes, in this order.

        Args:
            chunks: episodes by the chunk's number.
            shared: where several processes take chunks from; None where this one does them all. A
                chunk is claimed when its turn comes; what was loaded for one that another process
                got first is dropped.
        """
        unwanted = (lambda chunk: False) if shared is None else shared.done
        loaded = load_chunks(
            self.cache.plan(chunks, unwanted),
            self.dataset,
            self.pipeline.geometry,
            score_size=self.protocol.score_size,
            void=self.protocol.void,
            workers=min(self.workers, len(chunks)),
            pin=self.pipeline.device.type == "cuda",
        )
        if shared is not None:
            loaded = (data for data in loaded if self._claimed(data, shared))
        return measure_chunks(
            loaded, self.pipeline, self.cache, self.metrics, batch_size=self.job.batch_size
        )

    def _claimed(self, data: ChunkData, shared: HandOut) -> bool:
        if shared.claim(data.task.chunk):
            return True
        self.cache.open(data)  # what it promised to make, others must make now
        return False

    def _settings(self) -> dict[str, Any]:
        """Everything but the manifest that the rows depend on, and whether masks are kept."""
        settings = {
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
        # A run without masks keeps the folder that it had before there was such an option.
        if self.job.save_predictions:
            settings["predictions"] = True
        if self.job.cache_half:
            settings["features"] = "float16"
        return settings

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


def _cache(job: Evaluation, pipeline: Pipeline, dataset: Dataset) -> FeatureCache:
    files = None
    if job.cache_dir is not None:
        files = FeatureFiles(job.cache_dir, pipeline, job.cache_limit)
    budget = job.cache_memory
    if budget is None:
        shares = job.devices if pipeline.device.type == "cpu" else 1
        budget = default_budget(pipeline.device) // shares
    return FeatureCache(pipeline, dataset, budget, files=files, batch_size=job.batch_size)


def _workers(job: Evaluation) -> int:
    if job.workers is not None:
        return job.workers
    return max(0, min(8, (os.cpu_count() or 1) // job.devices - 1))


def _alone(folder: Path, chunks: Chunks, measure: Measure) -> Iterator[Part]:
    """One process measures everything."""
    del folder
    return measure(chunks, None)
