"""Construction of a training's components from names, with validation of the user's input."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import cattrs
import torch
from torch import Tensor

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.data.geometry import Geometry
from fssbench.data.image_digest import content_hashes, digest_of, short_hashes
from fssbench.errors import FssbenchError, near
from fssbench.inference.feature_cache import feature_bytes
from fssbench.matchers.checkpoint import (
    Checkpoint,
    known_images,
    read_checkpoint,
    trained_encoder,
)
from fssbench.matchers.matcher import Matcher, config_of
from fssbench.model import check_trained_fold, trained_classes
from fssbench.options import configure
from fssbench.results.method import short_digest
from fssbench.runtime.code import Code, code_of, identities
from fssbench.specs import BackboneSpec, MatcherSpec, SamplerSpec
from fssbench.training.augment import Augmentation
from fssbench.training.frozen_features import CACHE_BYTES
from fssbench.training.loader import BatchLoader
from fssbench.training.recipe import Recipe, find_recipe, only_stage
from fssbench.training.samples import Samples, base_classes, held_out_images, make_samples
from fssbench.training.stage import Stage, StageContext
from fssbench.training.training import Training

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """The components of a training.

    Attributes:
        settings: user's settings, with registered names.
        recipe: recipe with the changes of the settings.
        dataset: dataset with the training images.
        backbone: frozen encoder.
        matcher: matcher with its initial weights.
        stage: stage to train.
        samples: samples of each epoch.
        loader: loader of the samples.
        size: side of the encoder's input in pixels.
        init: checkpoint with the initial weights, or None.
        encoder: checkpoint whose encoder is used, if that is not `init`; or None.
        held_out: ids of the images to measure after each epoch.
        parts: further inputs of the stage; see `Stage.prepare`.
        code: code of matcher, backbone, stage, dataset and sampler, by package.
    """

    settings: Training
    recipe: Recipe
    dataset: Dataset
    backbone: Backbone
    matcher: Matcher
    stage: Stage
    samples: Samples
    loader: BatchLoader
    size: int
    init: Checkpoint | None
    encoder: Checkpoint | None
    held_out: Sequence[str]
    parts: Mapping[str, Any]
    code: Mapping[str, Code]

    @property
    def epoch_steps(self) -> int:
        """The number of optimiser steps of an epoch."""
        return self.samples.full_size // self.recipe.batch

    @property
    def steps(self) -> int:
        """The number of optimiser steps of the whole training."""
        return self.recipe.steps or (self.recipe.epochs or 0) * self.epoch_steps

    @property
    def validates(self) -> bool:
        """True if mIoU is measured after each epoch."""
        return self.stage.validates and self.settings.validation_episodes > 0

    def facts(self) -> dict[str, Any]:
        """Return the inputs that the identity and the header of checkpoints share."""
        return {
            "matcher": self.settings.matcher,
            "config": config_of(self.matcher),
            "backbone": self.settings.backbone,
            "weights": attrs.asdict(self.backbone.weights),
            "dataset": self.dataset.name,
            "fingerprint": self.dataset.fingerprint("train"),
            "fold": self.settings.fold,
            "stage": self.stage.name,
        }

    def base_classes(self) -> list[str] | None:
        """Return the names of all classes that the weights were trained on; None if unknown.

        These are the base classes of the fold, and those of the earlier trainings.
        """
        classes = self.dataset.classes
        found = [classes[class_id] for class_id in base_classes(self.dataset, self.settings.fold)]
        for checkpoint in self.earlier:
            known = trained_classes(checkpoint.header, self.dataset)
            if known is None:
                return None
            found = [*known, *found]
        return list(dict.fromkeys(found))

    @property
    def earlier(self) -> list[Checkpoint]:
        """The checkpoints that the training starts from: of the matcher, and of the encoder."""
        return [each for each in (self.encoder, self.init) if each is not None]

    def identity(self) -> dict[str, Any]:
        """Return all inputs that the weights depend on, except for devices and processes."""
        settings = self.settings
        return {
            **self.facts(),
            "recipe": cattrs.unstructure(self.recipe),
            "init": None if self.init is None else self.init.sha256,
            "seed": settings.seed,
            "precision": settings.precision,
            "select_on": settings.select_on,
            "validation_episodes": settings.validation_episodes,
            **({"parts": self.parts} if self.parts else {}),
            "code": identities(self.code),
        }

    @functools.cached_property
    def _hashes(self) -> Mapping[str, str]:
        return content_hashes(self.dataset, [*self.samples.images, *self.held_out])

    @functools.cached_property
    def images(self) -> str:
        """The digest of the content of the training images and the held-out ones."""
        return digest_of(self._hashes)

    @functools.cached_property
    def trained_images(self) -> Tensor:
        """The hashes of this training's images, and of those known of the earlier trainings."""
        own = short_hashes(self._hashes[image] for image in self.samples.images)
        found: Tensor = torch.unique(torch.cat([own, known_images(self.earlier)[0]]))
        return found

    def folder_name(self) -> str:
        """Return ``dataset/matcher--backbone--stage--settings/fold0-seed0``."""
        identity = self.identity()
        for name in ("fold", "seed", "code"):
            del identity[name]
        settings = self.settings
        parts = settings.matcher, settings.backbone, self.stage.name, short_digest(identity)
        method = "--".join(parts).replace("/", "-")
        return f"{self.dataset.name}/{method}/fold{settings.fold}-seed{settings.seed}"


def make_plan(settings: Training) -> Plan:
    """Build the components of a training.

    Raises:
        FssbenchError: a name, option, file or dataset is invalid.
    """
    known = registry.registry()
    spec = known.get(MatcherSpec, settings.matcher)
    if spec.encoders is not None:
        raise FssbenchError(
            f"{spec.name}: fssbench trains matchers on features; train this one, which takes whole "
            "images, with its own program and import the weights"
        )
    recipe = recipe_of(settings, spec)
    backbone_name = settings.backbone or recipe.backbone
    if not backbone_name:
        raise FssbenchError(f"recipe {recipe.name} names no backbone; give --backbone NAME")
    sampler = known.get(SamplerSpec, recipe.sampler)
    data_options = {**recipe.data_options, **settings.data_options}
    dataset = build.dataset(settings.dataset, settings.data_root, **data_options)
    settings = attrs.evolve(
        settings,
        matcher=spec.name,
        stage=recipe.stage,
        backbone=known.get(BackboneSpec, backbone_name).name,
        dataset=dataset.name,
    )
    classes = base_classes(dataset, settings.fold)
    options = {**recipe.options, **settings.options}
    configure(spec, options)
    init = None if settings.init is None else read_checkpoint(settings.init, "--init")
    if init is not None:
        init.check_is("backbone", settings.backbone, "--init")
        check_trained_fold(init, dataset.folds_of, [settings.fold], option="--init")
    weights = settings.weights if init is None else init.backbone_weights(settings.weights)
    backbone = build.backbone(settings.backbone, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        matcher = build.matcher(settings.matcher, backbone, **options)
        stage = _stage(spec, matcher, settings)
    if recipe.train_filter == "ignore" and stage.counts_ignored:
        raise FssbenchError(
            f'recipe {recipe.name}: train_filter = "ignore" has no effect, because stage '
            f"{stage.name} of {spec.name} counts ignored pixels as background; write "
            '"base-only" or "keep", or choose an option of the matcher, if there is one, that '
            f"leaves these pixels out (fssbench show matcher {spec.name})"
        )
    if stage.feeds == "labelled" and len(classes) > 254:
        raise FssbenchError(f"{dataset.name}: {len(classes)} base classes; labels hold 254")
    if init is not None:
        inherited = stage.inherits.get(str(init.header.get("stage")), ())
        if not inherited or init.header["matcher"] not in stage.siblings:
            init.check_is("matcher", settings.matcher, "--init")
        init.load_into(matcher, inherited)
    size = recipe.size or matcher.request().size
    if size % backbone.info.multiple:
        raise FssbenchError(
            f"backbone {settings.backbone} takes images whose side is a multiple of "
            f"{backbone.info.multiple}, not {size}; set the recipe's size"
        )
    samples = make_samples(dataset, recipe, stage.feeds, fold=settings.fold, seed=settings.seed)
    loader = _loader(
        dataset, recipe, matcher, backbone, stage, size, classes, settings, len(samples.images)
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
            augmented=loader.augmentation.variants != 1,
            weights=settings.part_weights,
            started=init is not None,
            recipe=recipe,
        ),
    )
    return Plan(
        settings=settings,
        recipe=recipe,
        dataset=dataset,
        backbone=backbone,
        matcher=matcher,
        stage=stage,
        samples=samples,
        loader=loader,
        size=size,
        init=init,
        encoder=trained_encoder(weights, init),
        held_out=held_out,
        parts=parts,
        code=code_of(
            [
                *matcher.modules(),
                *backbone.modules(),
                *(module for extra in stage.modules() for module in extra.modules()),
                stage,
                dataset,
                *known.plugins.named_by_user(),
                registry.load(sampler),
            ]
        ),
    )


def recipe_of(settings: Training, spec: MatcherSpec) -> Recipe:
    """Return the recipe with the changes of the settings, which are appended to its name."""
    stage = settings.stage or only_stage(spec, settings.recipe)
    recipe = find_recipe(spec, stage, dataset=settings.dataset, wanted=settings.recipe)
    changes: dict[str, Any] = {}
    if settings.epochs is not None or settings.steps is not None:
        changes |= {"epochs": settings.epochs, "steps": settings.steps}
    if settings.batch_size is not None:
        changes["batch"] = settings.batch_size
    changed = [f"{name}={value}" for name, value in changes.items() if value is not None]
    if settings.lr is not None:
        changes["optimiser"] = attrs.evolve(recipe.optimiser, lr=settings.lr)
        changed.append(f"lr={settings.lr:g}")
    if settings.shots is not None:
        changes["shots"] = settings.shots
    return attrs.evolve(recipe, name=" ".join([recipe.name, *changed]), **changes)


def _stage(spec: MatcherSpec, matcher: Matcher, settings: Training) -> Stage:
    stages = {stage.name: stage for stage in registry.load_stages(spec, matcher)}
    if settings.stage not in stages:
        raise FssbenchError(
            f"{settings.matcher} has no stage {settings.stage!r}; {near(settings.stage, stages)}"
            f"it has {', '.join(stages) or 'none: its spec names no stages'}"
        )
    stage = stages[settings.stage]
    for name in settings.part_weights:
        if name not in stage.parts:
            raise FssbenchError(
                f"--weights {name}=…: stage {stage.name} of {settings.matcher} has no part "
                f"{name!r}; {near(name, stage.parts)}it has {', '.join(stage.parts) or 'none'}"
            )
    return stage


def _loader(
    dataset: Dataset, recipe: Recipe, matcher: Matcher, backbone: Backbone, stage: Stage,
    size: int, classes: tuple[int, ...], settings: Training, images: int,
) -> BatchLoader:  # fmt: skip
    red, green, blue = (255 * backbone.mean.flatten()).tolist()
    request = attrs.evolve(matcher.request(), size=size, layers=tuple(stage.layers(matcher)))
    augmentation = Augmentation(
        recipe=recipe.augment,
        geometry=Geometry(size, request.resize),
        fill=(red, green, blue),
    )
    novel = dataset.fold_classes(settings.fold)
    variants = augmentation.variants
    memory = images * (variants or 0) * feature_bytes(backbone.info, request, settings.precision)
    recurs = variants and not (request.mask_support or stage.trains_backbone)
    if settings.cache_dir is not None and not recurs:
        why = (
            "the recipe augments images differently each time" if not variants
            else "the stage trains the encoder" if stage.trains_backbone
            else f"{settings.matcher} hides the background of supports before they are encoded"
        )  # fmt: skip
        log.warning("--cache-dir is not used: %s", why)
    return BatchLoader(
        dataset=dataset,
        feed=stage.feeds,
        augmentation=augmentation,
        hide=request.mask_support,
        classes=classes,
        ignored=frozenset(novel) if recipe.train_filter == "ignore" else frozenset(),
        key=(dataset.name, stage.name, settings.seed),
        marks=stage.wants_labels,
        caches=bool(recurs) and (memory <= CACHE_BYTES or settings.cache_dir is not None),
    )
