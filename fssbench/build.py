"""Datasets, backbones, matchers and metrics by registered name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from fssbench import registry
from fssbench.backbones.backbone import Backbone, BackboneInfo, WeightsInfo
from fssbench.backbones.encoder import Encoder
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError, near
from fssbench.matchers.image_matcher import ImageMatcher
from fssbench.matchers.matcher import Matcher
from fssbench.metrics.metric import Metric
from fssbench.options import configure
from fssbench.specs import BackboneSpec, DatasetSpec, MatcherSpec, MetricSpec, ProtocolSpec

T = TypeVar("T")


def dataset(name: str, /, root: str | Path | None = None, **options: Any) -> Dataset:
    """Return a dataset.

    Args:
        name: registered name, e.g. ``pascal5i``.
        root: folder of its files; ``shapes`` needs none.
        options: options of the dataset, see ``fssbench show dataset NAME``.

    Raises:
        FssbenchError: the name or an option is unknown, or the folder lacks expected files.
    """
    spec = registry.registry().get(DatasetSpec, name)
    config = configure(spec, options)
    made = registry.load(spec)(
        root=None if root is None else Path(root), config=config, **spec.arguments
    )
    return _checked(made, Dataset, spec.name)


def protocol_dataset(protocol: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """Return the dataset of a protocol, with the protocol's options of it and kind of supports.

    Args:
        protocol: registered name of the protocol.
        root: folder of the dataset's files.
        options: options of the dataset, which override the protocol's.

    Raises:
        FssbenchError: as `dataset`, or the protocol is unknown.
    """
    spec = registry.registry().get(ProtocolSpec, protocol)
    made = dataset(spec.dataset, root, **{**spec.data_options, **options})
    made.support_kind = spec.support_kind
    return made


def backbone(name: str, weights: str | Path = "pretrained") -> Backbone:
    """Return a frozen encoder.

    Args:
        name: registered name, e.g. ``resnet50``.
        weights: ``pretrained``, ``random``, or a weight file.

    Raises:
        FssbenchError: the name is unknown, or the weights cannot be read or do not fit.
    """
    spec = registry.registry().get(BackboneSpec, name)
    if not spec.features:
        raise FssbenchError(
            f"{spec.name} is no backbone with layers of features, but {spec.summary}"
        )
    if str(weights) == "none":  # reserved for `describe`: shapes without values
        raise FssbenchError("--weights none: give pretrained, random or a file")
    return _checked(
        registry.load(spec)(weights=str(weights), **spec.arguments), Backbone, spec.name
    )


def encoder(role: str, name: str, weights: str | Path = "pretrained") -> Encoder:
    """Return an encoder of an image matcher.

    Args:
        role: role in the method.
        name: registered name, e.g. ``dinov2-l`` or ``promptable-sam-vit-h``.
        weights: ``pretrained``, ``random``, or a weight file.

    Raises:
        FssbenchError: the name is unknown, or the weights cannot be read or do not fit.
    """
    spec = registry.registry().get(BackboneSpec, name)
    if spec.features:
        return Encoder(role, spec.name, backbone(spec.name, weights))
    made = registry.load(spec)(weights=str(weights), **spec.arguments)
    if not isinstance(getattr(_checked(made, nn.Module, spec.name), "weights", None), WeightsInfo):
        raise FssbenchError(f"the module of {spec.name} has no attribute weights, a WeightsInfo")
    return Encoder(role, spec.name, made)


def image_matcher(
    name: str,
    encoders: Mapping[str, str | Encoder] | None = None,
    weights: str | Path | Mapping[str, str | Path] = "pretrained",
    **options: Any,
) -> ImageMatcher:
    """Return an image matcher in eval mode, with its encoders.

    Args:
        name: registered name.
        encoders: names of encoders, or encoders, by role, instead of the method's defaults.
        weights: weights of all encoders, or by role.
        options: options of the matcher, see ``fssbench show matcher NAME``.

    Raises:
        FssbenchError: a name, role or option is unknown, or weights cannot be read or do not fit.
    """
    spec = registry.registry().get(MatcherSpec, name)
    config = configure(spec, options)
    chosen = roles(spec, encoders)
    of_role = weights if isinstance(weights, Mapping) else dict.fromkeys(chosen, weights)
    roles(spec, dict.fromkeys(of_role, ""))
    factory = registry.load(spec)
    if isinstance(factory, type) and issubclass(factory, Matcher):
        raise FssbenchError(
            f"matcher {spec.name} is a Matcher, which has no encoders by role: "
            "remove encoders from its MatcherSpec"
        )
    made = factory(
        config=config,
        encoders={
            role: encoder(role, each, of_role.get(role, "pretrained"))
            if isinstance(each, str)
            else each
            for role, each in chosen.items()
        },
        **spec.arguments,
    )
    return _with_uses(_checked(made, ImageMatcher, spec.name), spec)


def roles(spec: MatcherSpec, given: Mapping[str, T] | None) -> dict[str, str | T]:
    """Return the encoder of each role of an image matcher.

    Args:
        spec: spec of the matcher.
        given: encoders by role, instead of the defaults.

    Raises:
        FssbenchError: the matcher takes no encoders, or there is no such role.
    """
    if spec.encoders is None:
        raise FssbenchError(f"matcher {spec.name} works on the features of one --backbone")
    for role in given or ():
        if role not in spec.encoders:
            raise FssbenchError(
                f"matcher {spec.name} has no encoder called {role!r}; "
                f"{near(role, spec.encoders)}it has {', '.join(spec.encoders) or 'none'}"
            )
    return {**spec.encoders, **(given or {})}


def describe(spec: BackboneSpec) -> BackboneInfo:
    """Return names and shapes of a backbone's layers, without reading or drawing weights.

    Raises:
        FssbenchError: the factory cannot be imported.
    """
    return _without_weights(spec).info


def parameters(spec: BackboneSpec) -> int:
    """Return the number of parameters of a backbone, without reading or drawing weights."""
    return sum(parameter.numel() for parameter in _without_weights(spec).parameters())


def matcher(name: str, backbone: str | Backbone | BackboneInfo, **options: Any) -> Matcher:
    """Return a matcher in eval mode, with untrained weights if it has any.

    Args:
        name: registered name, e.g. ``prototype``.
        backbone: name, object or description of the backbone; only names and shapes of its layers
            are used.
        options: options of the matcher, see ``fssbench show matcher NAME``.

    Raises:
        FssbenchError: the name or an option is unknown, or the backbone lacks a required layer.
    """
    spec = registry.registry().get(MatcherSpec, name)
    if spec.encoders is not None:
        raise FssbenchError(f"{spec.name} takes whole images: build it with fssbench.image_matcher")
    config = configure(spec, options)
    if isinstance(backbone, str):
        backbone = describe(registry.registry().get(BackboneSpec, backbone))
    elif isinstance(backbone, Backbone):
        backbone = backbone.info
    factory = registry.load(spec)
    if isinstance(factory, type) and issubclass(factory, ImageMatcher):
        raise FssbenchError(
            f"matcher {spec.name} is an ImageMatcher: give its MatcherSpec the default encoders by "
            "role, or encoders={} if it has none"
        )
    made = factory(config=config, backbone=backbone, **spec.arguments)
    return _with_uses(_checked(made, Matcher, spec.name), spec)


M = TypeVar("M", Matcher, ImageMatcher)


def _with_uses(made: M, spec: MatcherSpec) -> M:
    made.uses = spec.uses
    return made.eval()


def metric(name: str) -> Metric:
    """Return a metric.

    Raises:
        FssbenchError: the name is unknown.
    """
    spec = registry.registry().get(MetricSpec, name)
    return _checked(registry.load(spec)(**spec.arguments), Metric, spec.name)


def _without_weights(spec: BackboneSpec) -> Backbone:
    """Call a backbone's factory on the meta device, where tensors have shapes and no values."""
    with torch.device("meta"):
        made: Backbone = registry.load(spec)(weights="none", **spec.arguments)
    return made


def _checked(made: object, wanted: type[T], name: str) -> T:
    if not isinstance(made, wanted):
        raise FssbenchError(
            f"the factory of {name} made a {type(made).__name__}, which is no {wanted.__name__}"
        )
    return made
