"""Evaluation of a matcher, from names to records."""

from __future__ import annotations

import logging
from typing import Any

import attrs

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.data.image_digest import ImageHashes
from fssbench.data.own_data import OwnData
from fssbench.episodes.protocol import check_lists
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import CellOutcome, Evaluator, Observers
from fssbench.evaluation.process_group import ProcessGroup
from fssbench.evaluation.training_overlap import TrainingOverlap
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.feature_files import FeatureFiles, identity_of
from fssbench.inference.image_chunks import ImageChunks, check_score_size
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.load_pipeline import load_pipeline
from fssbench.inference.pipeline import Pipeline
from fssbench.matchers.checkpoint import Checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.model import check_trained_fold, model_source
from fssbench.results.record import trained_fold
from fssbench.runtime.code import code_of
from fssbench.runtime.device import choose_device, loader_processes
from fssbench.runtime.memory import default_budget
from fssbench.specs import ProtocolSpec, SamplerSpec
from fssbench.unaccounted import drawn_values, unaccounted_parameters

log = logging.getLogger(__name__)


def evaluate(
    evaluation: Evaluation | None = None,
    *,
    observers: Observers | None = None,
    group: ProcessGroup | None = None,
    **changes: Any,
) -> list[CellOutcome]:
    """Evaluate a matcher on each requested fold, number of shots and seed.

    Each of these cells has its own run directory. An interrupted run is resumed, and the record of
    a finished run is read.

    Args:
        evaluation: settings; None for the embedded default.
        observers: function that returns further observers of a cell, e.g. a progress bar.
        group: processes that share the work; None for those of the settings or of a launcher.
        changes: attributes of `Evaluation` to change, e.g. ``evaluate(matcher="prototype")``.

    Returns:
        The outcome of each cell; none in a process that assists the first one.

    Raises:
        FssbenchError: a name, option, file or dataset is invalid.
    """
    settings = attrs.evolve(evaluation or Evaluation(), **changes)
    group = group or ProcessGroup.of(settings)
    with group.threads():
        evaluator = prepare(group.with_device(settings))
        manifests = evaluator.manifests()
        if group.rank:
            for manifest in manifests:
                evaluator.assist(manifest, group)
            return []
        evaluator.training.warn(manifests)
        try:
            return [
                evaluator.run(manifest, observers or (lambda run: ()), group, settings)
                for manifest in manifests
            ]
        finally:
            group.stop()


def prepare(settings: Evaluation) -> Evaluator:
    """Build the components of an evaluation, checking names and options before slow steps.

    Raises:
        FssbenchError: a name, option, file or dataset is invalid.
    """
    protocol = registry.registry().get(ProtocolSpec, settings.protocol)
    check_lists(protocol, settings.lists)
    source = model_source(
        settings.matcher,
        settings.backbone,
        settings.weights,
        checkpoint=settings.checkpoint,
        options=settings.options,
        encoders=settings.encoders,
        encoder_weights=settings.encoder_weights,
    )
    if source.encoders is not None:
        check_score_size(protocol.score_size)
        if settings.cache_half:
            raise FssbenchError(
                f"--cache-half rounds the features of a backbone; matcher {source.matcher} has none"
            )
    settings = attrs.evolve(
        settings,
        matcher=source.matcher,
        backbone=source.backbone,
        metrics=tuple(dict.fromkeys((*settings.metrics, *protocol.metrics))),
    )
    dataset = build.protocol_dataset(protocol.name, settings.data_root, **settings.data_options)
    folds = settings.folds
    if folds is None:
        folds = _folds(dataset, source.checkpoint)
    for fold in folds:
        dataset.check_fold(fold)
    header = None if source.checkpoint is None else source.checkpoint.header
    if header and protocol.base_classes:
        elsewhere = header.get("dataset") not in (None, dataset.name)
        if elsewhere or trained_fold(header, dataset.folds_of) is None:
            raise FssbenchError(
                f"--checkpoint {settings.checkpoint}: its header names no fold of {dataset.name}, "
                f"so its base classes are unknown; {protocol.name} scores them"
            )
    if source.checkpoint is not None and (protocol.base_classes or not settings.any_fold):
        other = ", or give --any-fold for a record that never ranks"
        check_trained_fold(
            source.checkpoint,
            dataset.folds_of,
            folds,
            option="--checkpoint",
            remedy=f"; evaluate --fold {{trained}}{'' if protocol.base_classes else other}",
        )
    if header and isinstance(dataset, OwnData):
        dataset.check_trained(header, f"--checkpoint {settings.checkpoint}")
    device = choose_device(settings.device, settings.precision)
    pipeline = load_pipeline(
        source, device=device, precision=settings.precision, half=settings.cache_half
    )
    known = getattr(type(pipeline.matcher), "base_logits", None)
    if protocol.base_classes and known in (None, Matcher.base_logits):
        raise FssbenchError(
            f"{protocol.name} scores base classes too, and matcher {source.matcher} segments only "
            "the classes of its supports; choose one with `Matcher.base_logits`"
        )
    frozen = pipeline.encoders if isinstance(pipeline, ImagePipeline) else pipeline.backbone
    drawn = drawn_values(source, pipeline.matcher, frozen)
    missing = unaccounted_parameters(pipeline.matcher, pipeline.frozen, source.checkpoint)
    if missing or drawn:
        log.warning(
            "%s: %s; such a record never ranks%s",
            settings.matcher,
            "; ".join((*missing, *drawn)),
            ": give --checkpoint FILE" if missing else ", draw from a torch.Generator with a seed",
        )
    metrics = tuple(build.metric(name) for name in settings.metrics)
    sampler = registry.load(registry.registry().get(SamplerSpec, protocol.sampler))
    named = registry.registry().plugins.named_by_user()
    models = [module for each in (pipeline.matcher, *pipeline.frozen) for module in each.modules()]
    hashes = ImageHashes(dataset)
    code = code_of([*models, dataset, *metrics, sampler, *named])
    return Evaluator(
        settings=settings,
        protocol=protocol,
        dataset=dataset,
        folds=folds,
        pipeline=pipeline,
        checkpoint=source.checkpoint,
        hashes=hashes,
        training=TrainingOverlap(dataset=dataset, checkpoints=source.checkpoints(), hashes=hashes),
        cache=_cache(settings, pipeline, dataset),
        metrics=metrics,
        drawn=drawn,
        code=code,
        workers=loader_processes(settings.workers, settings.devices),
    )


def _folds(dataset: Dataset, checkpoint: Checkpoint | None) -> tuple[int, ...]:
    """Return the fold that a checkpoint was trained for, or all folds."""
    trained = None if checkpoint is None else trained_fold(checkpoint.header, dataset.folds_of)
    return tuple(range(dataset.folds)) if trained is None else (trained,)


def _cache(
    settings: Evaluation, pipeline: Pipeline | ImagePipeline, dataset: Dataset
) -> FeatureCache | ImageChunks:
    budget = settings.cache_memory
    if budget is None:
        shares = settings.devices if pipeline.device.type == "cpu" else 1
        budget = default_budget(pipeline.device) // shares
    if isinstance(pipeline, ImagePipeline):
        return ImageChunks(
            pipeline, dataset, budget, folder=settings.cache_dir, limit=settings.cache_limit
        )
    files = None
    if settings.cache_dir is not None:
        files = FeatureFiles(
            pipeline.backbone, identity_of(pipeline), settings.cache_dir, settings.cache_limit
        )
    return FeatureCache(pipeline, dataset, budget, files=files, batch_size=settings.batch_size)
