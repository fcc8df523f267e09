"""Specs: frozen descriptions of the datasets, protocols, backbones, matchers, … of a plugin.

A spec names its implementation as text (``"package.module:Name"``), so that registration imports
neither torch nor optional packages. The implementation is imported on first use.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import attrs

from fssbench.errors import FssbenchError

Use = Literal["class_names", "gradients"]
"""Input of a method beyond the images and masks of an episode."""

SupportKind = Literal["mask", "box", "point", "scribble", "no-mask"]
"""Kind of the annotation that supports show, see `fssbench.episodes.annotations`."""


def _check_name(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.+-]*(/[a-z0-9][a-z0-9_.+-]*)?", value):
        raise ValueError(
            f"{attribute.name} {value!r}: use lower-case letters, digits and . _ + -, "
            "with at most one / between two such words"
        )


def _check_factory(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
    if value and not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError(f"{attribute.name} {value!r}: write 'package.module:Name'")


def _check_cite(_: Any, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if isinstance(value, str) or not all(re.fullmatch(r"[\w.]+:[^\s,{}]+", each) for each in value):
        raise ValueError(f"{attribute.name} {value!r}: write ('package:key', …)")


@attrs.frozen(kw_only=True)
class Spec:
    """Base of the specs.

    Attributes:
        name: unique name, lower case, e.g. ``prototype`` or ``pascal5i/v1-1k``.
        summary: description in one line.
        factory: ``"package.module:Name"`` of the class or function that creates the object.
        config: ``"package.module:Name"`` of an attrs class with its options, or "" for none.
        arguments: further keyword arguments of the factory, so that several specs can share it.
        aliases: alternative names.
        paper: title, venue or URL of the implemented paper.
        cite: BibTeX entries to cite, each as ``"package:key"``: the key of an entry of
            ``references.bib``, a file beside the package's ``__init__.py`` (or beside the module).
        licence: SPDX name of the licence of the implementation and of included weights; for a
            dataset, licence or terms of the data.
        requires: required modules in addition to fssbench's own dependencies.
        extra: pip requirement that installs them, e.g. ``fssbench[mamba]``.
    """

    name: str = attrs.field(validator=_check_name)
    summary: str
    factory: str = attrs.field(default="", validator=_check_factory)
    config: str = attrs.field(default="", validator=_check_factory)
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    aliases: tuple[str, ...] = ()
    paper: str = ""
    cite: tuple[str, ...] = attrs.field(default=(), validator=_check_cite)
    licence: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""


@attrs.frozen(kw_only=True)
class DatasetSpec(Spec):
    """A dataset; its factory is called as ``factory(root=Path | None, config=config)``.

    Attributes:
        layout: required content of the root folder, in one line; "" if no root is needed.
    """

    layout: str = ""


@attrs.frozen(kw_only=True)
class SamplerSpec(Spec):
    """A sampler; the factory is the function itself, see `fssbench.episodes.sampler`."""


@attrs.frozen(kw_only=True)
class ProtocolSpec(Spec):
    """The construction of manifests and the scoring of predictions, under an immutable name.

    Attributes:
        dataset: name of the dataset.
        split: split that the episodes are drawn from.
        sampler: name of the sampler.
        episodes: number of episodes, or None if the sampler determines it from the lists.
        min_pixels: minimum number of pixels of a class in an image that is listed for the class.
        rare: treatment of a class with too few listed images: an ``error`` for fewer than K+1;
            or (``drop``) a class with fewer than 6 (K+1 for more than 5 shots) is left out and
            named in manifest and record.
        draw_key: key of the random draws, in addition to fold, shots and seed; "" for the name. A
            control protocol has the name of the protocol whose episodes it modifies.
        score_size: size at which predictions are scored: the ``original`` size of the query image,
            or the matcher's ``input`` size (the mask is then resized with nearest neighbour).
        void: treatment of pixels of 255 in the query's mask: excluded from all counts
            (``ignore``), or counted as ``background``.
        ways: number of novel classes that an episode asks for, see `fssbench.Episode`.
        support_kind: annotation that supports show: the ``mask`` of the class, or a ``box``,
            ``point`` or ``scribble`` annotation that is made from it, or the whole image
            (``no-mask``).
        base_classes: True if all base classes of the fold are segmented too, without supports.
        lists: ``"package.module:function"`` that reads authors' list files (``--lists``), see
            `fssbench.episodes.literature.lists`; "" creates the lists from the dataset. With list
            files, `min_pixels` and `rare` are not used.
        metrics: names of the metrics that every evaluation measures, in addition to ``iou``.
        data_options: options of the dataset that differ from their defaults; the user's options
            (``-d``) override them.
    """

    dataset: str
    split: str
    sampler: str
    episodes: int | None
    min_pixels: int
    rare: Literal["error", "drop"] = "error"
    draw_key: str = ""
    score_size: Literal["original", "input"] = "original"
    void: Literal["ignore", "background"] = "ignore"
    ways: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    support_kind: SupportKind = attrs.field(
        default="mask", validator=attrs.validators.in_(get_args(SupportKind))
    )
    base_classes: bool = False
    lists: str = attrs.field(default="", validator=_check_factory)
    metrics: tuple[str, ...] = ()
    data_options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class BackboneSpec(Spec):
    """A frozen encoder; its factory is called as ``factory(weights=str, **arguments)``.

    The weights are ``pretrained``, ``random`` or a file; or ``none``, on torch's meta device, if
    only names and shapes of the layers are needed.

    Attributes:
        features: False for a pretrained model that is no `fssbench.Backbone`, such as a promptable
            one, which only an `fssbench.ImageMatcher` can use. The factory returns a module whose
            attribute ``weights`` is a `fssbench.WeightsInfo`, and is never called with ``none``.
    """

    features: bool = True


@attrs.frozen(kw_only=True)
class MatcherSpec(Spec):
    """A method; its factory is called as ``factory(config=config, backbone=BackboneInfo)``.

    The factory of an `fssbench.ImageMatcher` is called as ``factory(config=config,
    encoders=encoders)``, with an `fssbench.Encoder` for each role.

    Attributes:
        encoders: registered names of the default encoders by role (``--encoder ROLE=NAME``), for
            an `fssbench.ImageMatcher`; None for an `fssbench.Matcher`.
        small_encoders: small encoders by role, for `fssbench plugin check` and tests; the default
            encoders where a role is missing.
        uses: input beyond images and masks: ``class_names``, or ``gradients`` at test time. It is
            in the record and on boards.
        backbones: names of the backbones that an `fssbench.Matcher` is made for, also with the
            wildcard ``*``; the first is the default. Empty for all, with default ``tiny-resnet``.
        stages: ``"package.module:function"`` that takes the matcher and returns the sequence of its
            training stages, `fssbench.Stage` objects in order; "" for a method without training.
        recipes: ``"package:recipes.toml"``, a file beside the package's ``__init__.py`` (or beside
            the module) with the hyper-parameters of the stages; "" for a method without training.
        importer: ``"package.module:function"`` that reads the authors' own checkpoint files, see
            `fssbench.importing`; "" if there is none.
        parameter_counts: numbers of learnable parameters with the default options, by name of the
            backbone, e.g. those of the paper; checked by `fssbench plugin check`.
    """

    stages: str = attrs.field(default="", validator=_check_factory)
    recipes: str = ""
    importer: str = attrs.field(default="", validator=_check_factory)
    parameter_counts: Mapping[str, int] = attrs.field(factory=dict)
    encoders: Mapping[str, str] | None = None
    small_encoders: Mapping[str, str] = attrs.field(factory=dict)
    uses: tuple[Use, ...] = ()
    backbones: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class MetricSpec(Spec):
    """A metric; its factory is called as ``factory(**arguments)``."""


KINDS: dict[str, type[Spec]] = {
    "dataset": DatasetSpec,
    "sampler": SamplerSpec,
    "protocol": ProtocolSpec,
    "backbone": BackboneSpec,
    "matcher": MatcherSpec,
    "metric": MetricSpec,
}
"""Specs by kind, the name of the kind on the command line."""


def resolve(path: str, name: str) -> Any:
    """Import the object ``"package.module:Name"`` of a spec.

    Args:
        path: path of the object.
        name: name of the spec, for messages.

    Raises:
        FssbenchError: the path is empty, or the object cannot be imported.
    """
    module_name, _, attribute = path.partition(":")
    if not path:
        raise FssbenchError(f"{name} has no factory and cannot be created; correct its spec")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise FssbenchError(f"{name}: cannot import {path}: {error}") from error


def file_beside(path: str, name: str) -> Path:
    """Return the file ``"package:file"`` of a spec, which need not exist.

    Args:
        path: file beside the ``__init__.py`` of a package, or beside a module.
        name: name of the spec, for messages.

    Raises:
        FssbenchError: the package cannot be imported.
    """
    module_name, _, file = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise FssbenchError(f"{name}: cannot import the package of {path}: {error}") from error
    return Path(str(module.__file__)).parent / file
