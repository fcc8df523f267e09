"""Evaluate a matcher: from names to records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import attrs

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.episodes.protocol import check_lists
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import CellOutcome, Evaluator, Observers
from fssbench.evaluation.process_group import ProcessGroup
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.feature_files import FeatureFiles, identity_of
from fssbench.inference.pipeline import Pipeline, choose_device
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.options import configure
from fssbench.results.record import trained_fold
from fssbench.runtime.memory import default_budget
from fssbench.specs import BackboneSpec, MatcherSpec, ProtocolSpec

DEFAULT_MATCHER = "prototype"
DEFAULT_BACKBONE = "tiny-resnet"


def evaluate(
    evaluation: Evaluation | None = None,
    *,
    observers: Observers | None = None,
    team: ProcessGroup | None = None,
    **changes: Any,
) -> list[CellOutcome]:
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
    team = team or ProcessGroup.of(job)
    with team.threads():
        bench = prepare(team.with_device(job))
        manifests = bench.manifests()
        if team.rank:
            for manifest in manifests:
                bench.help(manifest, team)
            return []
        try:
            return [bench.run(m, observers or (lambda run: ()), team, job) for m in manifests]
        finally:
            team.stop()


def prepare(job: Evaluation) -> Evaluator:
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
    configure(method, job.options)
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
    return Evaluator(
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
        files = FeatureFiles(identity_of(pipeline), job.cache_dir, job.cache_limit)
    budget = job.cache_memory
    if budget is None:
        shares = job.devices if pipeline.device.type == "cpu" else 1
        budget = default_budget(pipeline.device) // shares
    return FeatureCache(pipeline, dataset, budget, files=files, batch_size=job.batch_size)


def _workers(job: Evaluation) -> int:
    if job.workers is not None:
        return job.workers
    return max(0, min(8, (os.cpu_count() or 1) // job.devices - 1))
