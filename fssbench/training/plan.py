"""Construction of a training's components from names, with validation of the user's input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import cattrs
import torch

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.data.geometry import Geometry
from fssbench.errors import FssbenchError, near
from fssbench.inference.feature_cache import feature_bytes
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.matcher import Matcher, config_of
from fssbench.model import check_trained_fold
from fssbench.options import configure
from fssbench.results.method import short_digest
from fssbench.specs import BackboneSpec, MatcherSpec, SamplerSpec
from fssbench.training.augment import Augmentation
from fssbench.training.frozen_features import CACHE_BYTES
from fssbench.training.heldout import held_out_images
from fssbench.training.loader import BatchLoader
from fssbench.training.recipe import Recipe, find_recipe, only_stage
from fssbench.training.samples import Samples, base_classes, make_samples
from fssbench.training.stage import Stage, StageContext
from fssbench.training.training import Training


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """The components of a training.

    Attributes:
        job: user's settings, with registered names.
        recipe: recipe with the changes of the settings.
        dataset: dataset with the training images.
        backbone: frozen encoder.
        matcher: matcher with its initial weights.
        stage: stage to train.
        samples: samples of each epoch.
        loader: loader of the samples.
        size: side of the encoder's input in pixels.
        init: checkpoint with the initial weights, or None.
        held_out: ids of the images to measure after each epoch.
        parts: further inputs of the stage; see `Stage.prepare`.
    """

    job: Training
    recipe: Recipe
    dataset: Dataset
    backbone: Backbone
    matcher: Matcher
    stage: Stage
    samples: Samples
    loader: BatchLoader
    size: int
    init: Checkpoint | None
    held_out: Sequence[str]
    parts: Mapping[str, Any]

    @property
    def epoch_steps(self) -> int:
        """The number of optimiser steps of an epoch."""
        return self.samples.full_size // self.recipe.batch

    @property
    def steps(self) -> int:
        """The number of optimiser steps of the whole training."""
        if self.recipe.steps is not None:
            return self.recipe.steps
        assert self.recipe.epochs is not None
        return self.recipe.epochs * self.epoch_steps

    @property
    def validates(self) -> bool:
        """True if mIoU is measured after each epoch."""
        return self.stage.validates and self.job.validation_episodes > 0

    def identity(self) -> dict[str, Any]:
        """Return all inputs that the weights depend on, except for devices and processes."""
        job = self.job
        return {
            "matcher": job.matcher,
            "config": config_of(self.matcher),
            "backbone": job.backbone,
            "weights": attrs.asdict(self.backbone.weights),
            "stage": self.stage.name,
            "recipe": cattrs.unstructure(self.recipe),
            "init": None if self.init is None else self.init.sha256,
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint("train"),
            "fold": job.fold,
            "seed": job.seed,
            "precision": job.precision,
            "select_on": job.select_on,
            "validation_episodes": job.validation_episodes,
            **({"parts": self.parts} if self.parts else {}),
        }

    def folder_name(self) -> str:
        """Return ``dataset/matcher--backbone--stage--settings/fold0-seed0``."""
        identity = self.identity()
        del identity["fold"], identity["seed"]
        job, digits = self.job, short_digest(identity)
        method = f"{job.matcher}--{job.backbone}--{self.stage.name}--{digits}".replace("/", "-")
        return f"{self.dataset.name}/{method}/fold{job.fold}-seed{job.seed}"


def make_plan(job: Training) -> Plan:
    """Build the components of a training.

    Raises:
        FssbenchError: a name, option, file or dataset is invalid.
    """
    known = registry.registry()
    spec = known.get(MatcherSpec, job.matcher)
    recipe = recipe_of(job, spec)
    backbone_name = job.backbone or recipe.backbone
    if not backbone_name:
        raise FssbenchError(f"recipe {recipe.name} names no backbone; give --backbone NAME")
    known.get(SamplerSpec, recipe.sampler)
    dataset = build.dataset(job.dataset, job.data_root, **job.data_options)
    job = attrs.evolve(
        job,
        matcher=spec.name,
        stage=recipe.stage,
        backbone=known.get(BackboneSpec, backbone_name).name,
        dataset=dataset.name,
    )
    classes = base_classes(dataset, job.fold)
    options = {**recipe.options, **job.options}
    configure(spec, options)
    init = None if job.init is None else read_checkpoint(job.init)
    if init is not None:
        init.check_is("matcher", job.matcher, "--init")
        init.check_is("backbone", job.backbone, "--init")
        check_trained_fold(init, job.dataset, [job.fold], option="--init")
    weights = job.weights if init is None else init.backbone_weights(job.weights)
    backbone = build.backbone(job.backbone, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        matcher = build.matcher(job.matcher, backbone, **options)
        stage = _stage(spec, matcher, job)
    if stage.feeds == "labelled" and len(classes) > 254:
        raise FssbenchError(f"{dataset.name}: {len(classes)} base classes; labels hold 254")
    if init is not None:
        init.load_into(matcher, stage.inherits.get(str(init.header.get("stage")), ()))
    size = recipe.size or matcher.request().size
    if size % backbone.info.multiple:
        raise FssbenchError(
            f"backbone {job.backbone} takes images whose side is a multiple of "
            f"{backbone.info.multiple}, not {size}; set the recipe's size"
        )
    samples = make_samples(dataset, recipe, stage.feeds, fold=job.fold, seed=job.seed)
    loader = _loader(
        dataset, recipe, matcher, backbone, stage, size, classes, job, len(samples.images)
    )
    held_out = held_out_images(dataset, stage)
    parts = stage.prepare(
        matcher,
        StageContext(
            dataset=dataset,
            backbone=backbone,
            size=size,
            resize=loader.augmentation.geometry.resize,
            images=samples.images,
            held_out=held_out,
            augmented=loader.augmentation.random,
            weights=_part_weights(stage, job),
            started=init is not None,
        ),
    )
    return Plan(
        job=job,
        recipe=recipe,
        dataset=dataset,
        backbone=backbone,
        matcher=matcher,
        stage=stage,
        samples=samples,
        loader=loader,
        size=size,
        init=init,
        held_out=held_out,
        parts=parts,
    )


def recipe_of(job: Training, spec: MatcherSpec) -> Recipe:
    """Return the recipe with the changes of the settings, which are appended to its name."""
    stage = job.stage or only_stage(spec, job.recipe)
    recipe = find_recipe(spec, stage, dataset=job.dataset, wanted=job.recipe)
    changes: dict[str, Any] = {}
    changed = []
    if job.epochs is not None or job.steps is not None:
        changes |= {"epochs": job.epochs, "steps": job.steps}
        changed.append(f"epochs={job.epochs}" if job.epochs is not None else f"steps={job.steps}")
    if job.batch_size is not None:
        changes["batch"] = job.batch_size
        changed.append(f"batch={job.batch_size}")
    if job.lr is not None:
        changes["optimiser"] = attrs.evolve(recipe.optimiser, lr=job.lr)
        changed.append(f"lr={job.lr:g}")
    if job.shots is not None:
        changes["shots"] = job.shots
    return attrs.evolve(recipe, name=" ".join([recipe.name, *changed]), **changes)


def _part_weights(stage: Stage, job: Training) -> Mapping[str, str]:
    for name in job.part_weights:
        if name not in stage.parts:
            raise FssbenchError(
                f"--weights {name}=…: stage {stage.name} of {job.matcher} has no part {name!r}; "
                f"{near(name, stage.parts)}it has {', '.join(stage.parts) or 'none'}"
            )
    return job.part_weights


def _stage(spec: MatcherSpec, matcher: Matcher, job: Training) -> Stage:
    stages = {stage.name: stage for stage in registry.load_stages(spec, matcher)}
    if job.stage not in stages:
        raise FssbenchError(
            f"{job.matcher} has no stage {job.stage!r}; {near(job.stage, stages)}"
            f"it has {', '.join(stages) or 'none: its spec names no stages'}"
        )
    return stages[job.stage]


def _loader(
    dataset: Dataset, recipe: Recipe, matcher: Matcher, backbone: Backbone, stage: Stage,
    size: int, classes: tuple[int, ...], job: Training, images: int,
) -> BatchLoader:  # fmt: skip
    red, green, blue = (255 * backbone.mean.flatten()).tolist()
    request = attrs.evolve(matcher.request(), size=size, layers=tuple(stage.layers(matcher)))
    augmentation = Augmentation(
        recipe=recipe.augment,
        geometry=Geometry(size, request.resize),
        fill=(red, green, blue),
    )
    still = not (augmentation.random or request.mask_support or stage.trains_backbone)
    memory = images * feature_bytes(backbone.info, request, job.precision)
    return BatchLoader(
        dataset=dataset,
        feed=stage.feeds,
        augmentation=augmentation,
        hide=request.mask_support,
        classes=classes,
        key=(dataset.name, stage.name, job.seed),
        marks=stage.wants_labels,
        caches=still and memory <= CACHE_BYTES,
    )
