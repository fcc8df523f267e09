"""Recipes: the published hyper-parameters of a stage for one dataset, read from TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_type_hints

import attrs
from attrs.validators import and_, ge, gt, le, optional

from fssbench.errors import FssbenchError, near
from fssbench.options import NotFiniteError, structure
from fssbench.specs import MatcherSpec, file_beside

_positive: Any = optional(gt(0))
_not_negative: Any = ge(0)
_probability: Any = and_(ge(0), le(1))


def _range(_: Any, attribute: attrs.Attribute[Any], value: tuple[float, float] | None) -> None:
    if value is not None and not value[0] <= value[1]:
        raise ValueError(f"{attribute.name} must be [least, most], not {list(value)}")


@attrs.frozen(kw_only=True)
class Optimiser:
    """The table ``optimiser``.

    Attributes:
        kind: algorithm, ``sgd``, ``adam`` or ``adamw``.
        lr: learning rate of a group whose scale is 1.
        weight_decay: weight decay of groups without one of their own.
        decay_per_lr: weight decay divided by `lr`, for codes that tie both; it is added to
            `weight_decay`.
        momentum: momentum of ``sgd``.
        nesterov: True if the momentum of ``sgd`` is Nesterov's.
        betas: coefficients of the running averages of ``adam`` and ``adamw``.
        lr_scales: factors of learning rates by the name of the parameter group.
    """

    kind: Literal["sgd", "adam", "adamw"]
    lr: float = attrs.field(validator=_positive)
    weight_decay: float = attrs.field(default=0.0, validator=_not_negative)
    decay_per_lr: float = attrs.field(default=0.0, validator=_not_negative)
    momentum: float = attrs.field(default=0.0, validator=_not_negative)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    lr_scales: Mapping[str, float] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Schedule:
    """The table ``schedule``: the factor of learning rates after t steps of T.

    Warm-up counts as part of T: after it the schedule runs over the other T - warmup steps.

    Attributes:
        kind: function of the step: ``constant`` (1), ``poly`` ((1 - t/T)^power), or ``cosine``
            (half a cosine from 1 to `final`).
        power: exponent of ``poly``.
        final: last value of ``cosine``.
        warmup: number of first steps over which the factor rises linearly from `warmup_start` to 1.
        warmup_start: first value of the warm-up.
        per: interval at which the factor changes, each ``step`` or each ``epoch``.
        ahead: steps added to t; 1 for codes that count the step that is taken, such as PFENet's,
            BAM's and HDMNet's, whose last step has the factor 0.
    """

    kind: Literal["constant", "poly", "cosine"] = "constant"
    power: float = attrs.field(default=0.9, validator=_positive)
    final: float = attrs.field(default=0.0, validator=_not_negative)
    warmup: int = attrs.field(default=0, validator=_not_negative)
    warmup_start: float = attrs.field(default=0.1, validator=_not_negative)
    per: Literal["step", "epoch"] = "step"
    ahead: Literal[0, 1] = 0


@attrs.frozen(kw_only=True)
class Augment:
    """The table ``augment``: transformations of an image and its masks, in this order.

    Attributes:
        resize: first resizing, to the encoder's size: ``request`` (that of the matcher's
            `FeatureRequest`), ``squash``, ``letterbox``, or ``none`` (the original size).
        scale: range of a uniformly drawn factor for both sides; None for no scaling.
        rotate: range in degrees of a uniformly drawn angle; None for no rotation.
        rotate_probability: probability of the rotation.
        blur: probability of a Gaussian blur of 5 x 5 pixels.
        flip: probability of a horizontal flip.
        crop: conversion of another shape to the encoder's square: ``random`` or ``centre`` crop
            after padding (images with the encoder's mean colour, masks with 255), or ``squash``,
            which resizes each side separately.
        crop_retries: number of further random crops that are tried while a crop has less than 85 %
            of the pixels of label 1, as in PFENet's and BAM's code. In a stage that feeds on
            ``labelled``, label 1 is the first base class.
    """

    resize: Literal["request", "squash", "letterbox", "none"] = "request"
    scale: tuple[float, float] | None = attrs.field(default=None, validator=_range)
    rotate: tuple[float, float] | None = attrs.field(default=None, validator=_range)
    rotate_probability: float = attrs.field(default=1.0, validator=_probability)
    blur: float = attrs.field(default=0.0, validator=_probability)
    flip: float = attrs.field(default=0.0, validator=_probability)
    crop: Literal["random", "centre", "squash"] = "random"
    crop_retries: int = attrs.field(default=0, validator=_not_negative)


@attrs.frozen(kw_only=True)
class Recipe:
    """A table ``[STAGE.NAME]`` of a ``recipes.toml``; the default for the dataset called NAME.

    .. code-block:: toml

        [episodes.pascal5i]          # stage "episodes", recipe "pascal5i"
        paper = "section 4.1"
        backbone = "resnet50"
        epochs = 50
        batch = 48
        optimiser = { kind = "sgd", lr = 1e-3, momentum = 0.9, nesterov = true }
        augment = { flip = 0.5 }     # schedule and augment may be left out

    Attributes:
        stage: name of the stage, from the table's name.
        name: name of the recipe, from the table's name.
        paper: source of the numbers.
        backbone: name of the encoder; "" when ``--backbone`` is required.
        options: options of the matcher that differ from their defaults.
        shots: number of supports (K) of training episodes.
        epochs: length of the training in epochs; exactly one of `epochs` and `steps` is given.
        steps: length of the training in optimiser steps.
        epoch_size: samples of an epoch; None for the sampler's own number, e.g. one episode for
            each (base class, image), or for each image once. Samples beyond the last full batch are
            left out.
        batch: samples of an optimiser step, over all devices and micro-batches.
        size: side of the encoder's input in training; None for that of the matcher's
            `FeatureRequest`.
        optimiser: table ``optimiser``, see `Optimiser`.
        schedule: table ``schedule``, see `Schedule`.
        losses: weights of losses by name; 1 for those not named.
        augment: table ``augment``, see `Augment`.
        clip: maximum norm of the gradients, which are scaled down to it; None for no limit.
        sampler: name of the sampler that draws episodes.
        min_pixels: minimum number of pixels of a class in the images that are listed for it.
        train_filter: treatment of training images that show novel classes: ``keep`` (those pixels
            are background), ``ignore`` (those pixels are ignored), ``base-only`` (the images are
            dropped), or ``all`` (as ``keep``, and stages that feed on ``labelled`` also train on
            images of novel classes alone).
        data_options: options of the dataset that differ from their defaults; the user's options
            (``-d``) override them.
    """

    stage: str
    name: str
    paper: str = ""
    backbone: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    shots: int = attrs.field(default=1, validator=_positive)
    epochs: int | None = attrs.field(default=None, validator=_positive)
    steps: int | None = attrs.field(default=None, validator=_positive)
    epoch_size: int | None = attrs.field(default=None, validator=_positive)
    batch: int = attrs.field(validator=_positive)
    size: int | None = attrs.field(default=None, validator=_positive)
    optimiser: Optimiser
    schedule: Schedule = Schedule()
    losses: Mapping[str, float] = attrs.field(factory=dict)
    augment: Augment = Augment()
    clip: float | None = attrs.field(default=None, validator=_positive)
    sampler: str = "class-balanced"
    min_pixels: int = attrs.field(default=1, validator=_positive)
    train_filter: Literal["keep", "ignore", "base-only", "all"] = "keep"
    data_options: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give epochs or steps, one of them")


def find_recipe(spec: MatcherSpec, stage: str, *, dataset: str, wanted: str = "") -> Recipe:
    """Return the recipe to train a stage with.

    Args:
        spec: spec of the matcher.
        stage: name of the stage.
        dataset: name of the dataset.
        wanted: name of one of the matcher's recipes, or a user's ``.toml`` file; "" for the
            matcher's recipe of the dataset's name. That name also selects among several recipes for
            the stage in a file.

    Raises:
        FssbenchError: the recipe does not exist or is invalid.
    """
    path, tables = _read(spec, wanted)
    own = wanted.endswith(".toml")
    recipes = tables.get(stage, {})
    name = dataset if own or not wanted else wanted
    if own and len(recipes) == 1:
        name = next(iter(recipes))
    if name not in recipes:
        there = ", ".join(f"{s}.{n}" for s, named in tables.items() for n in named)
        close = near(name, recipes) if recipes else near(stage, tables)
        raise FssbenchError(
            f"{path.name} has no recipe [{stage}.{name}]; {close}there: {there or 'none'}; "
            "choose with --recipe NAME, or write your own FILE.toml"
        )
    label = f"{path.stem}:{name}" if own else name
    where = f"{path.name}: [{stage}.{name}]"
    recipe: Recipe = _structure(Recipe, {**recipes[name], "stage": stage, "name": label}, where)
    return recipe


def only_stage(spec: MatcherSpec, wanted: str = "") -> str:
    """Return the only stage of a matcher's recipes.

    Args:
        spec: spec of the matcher.
        wanted: recipe or file, as for `find_recipe`.

    Raises:
        FssbenchError: there are recipes for several stages, or for none.
    """
    stages = list(_read(spec, wanted)[1])
    if len(stages) != 1:
        raise FssbenchError(f"{spec.name}: give --stage, one of {', '.join(stages) or 'none'}")
    return stages[0]


def recipe_names(spec: MatcherSpec) -> dict[str, list[str]]:
    """Return the names of a matcher's recipes by stage; empty for a method without recipes.

    Raises:
        FssbenchError: the file cannot be read or is no TOML.
    """
    tables = _read(spec, "")[1] if spec.recipes else {}
    return {stage: list(named) for stage, named in tables.items()}


def first_backbone(spec: MatcherSpec) -> str:
    """Return the first encoder that a matcher's recipes name; "" if they name none."""
    tables = _read(spec, "")[1] if spec.recipes else {}
    recipes = (recipe for named in tables.values() for recipe in named.values())
    return next((str(each["backbone"]) for each in recipes if each.get("backbone")), "")


def _read(spec: MatcherSpec, wanted: str) -> tuple[Path, dict[str, dict[str, dict[str, Any]]]]:
    """Return the file of a matcher's recipes, or the user's, and its tables."""
    own = wanted.endswith(".toml")
    if not own and not spec.recipes:
        raise FssbenchError(
            f"{spec.name} has no recipes: it needs no training, or give --recipe FILE.toml"
        )
    path = Path(wanted) if own else file_beside(spec.recipes, spec.name)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FssbenchError(f"{path}: cannot read these recipes: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FssbenchError(f"{path}: this is no TOML: {error}") from error
    for stage, recipes in tables.items():
        if not isinstance(recipes, dict) or not all(isinstance(r, dict) for r in recipes.values()):
            raise FssbenchError(f"{path}: write recipes as tables [STAGE.NAME], not {stage!r}")
    return path, tables


def _structure(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    fields = attrs.fields_dict(kind)
    made = {}
    for key, value in values.items():
        if key not in fields:
            raise FssbenchError(
                f"{where}: there is no {key!r}; {near(key, fields)}there are {', '.join(fields)}"
            )
        if attrs.has(hints[key]) and isinstance(value, dict):
            made[key] = _structure(hints[key], value, f"{where[:-1]}.{key}]")
            continue
        try:
            made[key] = structure(value, hints[key])
        except NotFiniteError as error:
            raise FssbenchError(f"{where}: {key} = {value!r}: give a finite number") from error
        except Exception as error:
            raise FssbenchError(f"{where}: {key} = {value!r} is of the wrong type") from error
    try:
        return kind(**made)
    except (TypeError, ValueError) as error:
        reason = str(error.args[0]).replace(f"{kind.__name__}.__init__() ", "")
        raise FssbenchError(f"{where}: {reason}") from error
