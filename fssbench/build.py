"""Names to objects: how the command line and people's own scripts get their parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from fssbench import registry
from fssbench.backbones.backbone import Backbone, BackboneInfo
from fssbench.backbones.describe import describe
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.matchers.matcher import Matcher
from fssbench.metrics.metric import Metric
from fssbench.options import configure
from fssbench.specs import BackboneSpec, DatasetSpec, MatcherSpec, MetricSpec

T = TypeVar("T")


def dataset(name: str, root: str | Path | None = None, **options: Any) -> Dataset:
    """A dataset.

    Args:
        name: e.g. ``pascal5i``.
        root: the folder that its files lie in; ``shapes`` needs none.
        options: the dataset's own, see ``fssbench show dataset NAME``.

    Raises:
        FssbenchError: unknown name or option, or the folder is not laid out as expected.
    """
    spec = registry.registry().get(DatasetSpec, name)
    config = configure(spec, options)
    made = registry.load(spec)(
        root=None if root is None else Path(root), config=config, **spec.arguments
    )
    return _checked(made, Dataset, spec.name)


def backbone(name: str, weights: str | Path = "pretrained") -> Backbone:
    """A frozen encoder.

    Args:
        name: e.g. ``resnet50``.
        weights: ``pretrained``, ``random``, or a weight file.

    Raises:
        FssbenchError: unknown name, or the weights cannot be had or do not fit.
    """
    spec = registry.registry().get(BackboneSpec, name)
    if str(weights) == "none":  # what `describe` asks a factory for: shapes without numbers
        raise FssbenchError("--weights none: give pretrained, random or a file")
    return _checked(
        registry.load(spec)(weights=str(weights), **spec.arguments), Backbone, spec.name
    )


def matcher(name: str, backbone: str | Backbone | BackboneInfo, **options: Any) -> Matcher:
    """A method for a backbone, in eval mode, with untrained weights if it has any.

    Args:
        name: e.g. ``prototype``.
        backbone: its name, or the object; only names and shapes of its features are used.
        options: the matcher's own, see ``fssbench show matcher NAME``.

    Raises:
        FssbenchError: unknown name or option, or the backbone lacks what the matcher needs.
    """
    spec = registry.registry().get(MatcherSpec, name)
    config = configure(spec, options)
    if isinstance(backbone, str):
        backbone = describe(registry.registry().get(BackboneSpec, backbone))
    elif isinstance(backbone, Backbone):
        backbone = backbone.info
    made = registry.load(spec)(config=config, backbone=backbone, **spec.arguments)
    return _checked(made, Matcher, spec.name).eval()


def metric(name: str) -> Metric:
    """A metric.

    Raises:
        FssbenchError: unknown name.
    """
    spec = registry.registry().get(MetricSpec, name)
    return _checked(registry.load(spec)(**spec.arguments), Metric, spec.name)


def _checked(made: object, wanted: type[T], name: str) -> T:
    if not isinstance(made, wanted):
        raise FssbenchError(
            f"the factory of {name} made a {type(made).__name__}, which is no {wanted.__name__}"
        )
    return made
