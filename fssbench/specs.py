"""What plugins hand over: frozen descriptions of datasets, protocols, backbones, matchers.

A spec names its implementation as text (``"package.module:Name"``), so handing over specs imports
neither torch nor anything optional. The implementation is imported when somebody asks for it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from fssbench.errors import FssbenchError


def _check_name(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.+-]*(/[a-z0-9][a-z0-9_.+-]*)?", value):
        raise ValueError(
            f"{attribute.name} {value!r}: use lower-case letters, digits and . _ + -, "
            "with at most one / between two such words"
        )


def _check_factory(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
    if value and not re.fullmatch(r"[\w.]+:\w+", value):
        raise ValueError(f"{attribute.name} {value!r}: write 'package.module:Name'")


@attrs.frozen(kw_only=True)
class Spec:
    """What every registered thing says about itself.

    Attributes:
        name: how people ask for it, lower case, e.g. ``prototype`` or ``pascal5i/v1-1k``.
        summary: one line.
        factory: ``"package.module:Name"`` of the class or function that makes it.
        config: ``"package.module:Name"`` of an attrs class with its options, or "" for none.
        arguments: further keyword arguments of the factory, so that one factory can serve
            several names.
        aliases: other names that find it.
        paper: title, venue or URL of what it implements.
        licence: SPDX name of the implementation's licence (and of weights that it brings).
        requires: modules that must be importable, beyond fssbench's own dependencies.
        extra: the pip requirement that brings them, e.g. ``fssbench[mamba]``.
    """

    name: str = attrs.field(validator=_check_name)
    summary: str
    factory: str = attrs.field(default="", validator=_check_factory)
    config: str = attrs.field(default="", validator=_check_factory)
    arguments: Mapping[str, Any] = attrs.field(factory=dict)
    aliases: tuple[str, ...] = ()
    paper: str = ""
    licence: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""


@attrs.frozen(kw_only=True)
class DatasetSpec(Spec):
    """A dataset; its factory is called as ``factory(root=Path | None, config=config)``.

    Attributes:
        layout: what a person must put below the root, one line; "" when no root is needed.
    """

    layout: str = ""


@attrs.frozen(kw_only=True)
class SamplerSpec(Spec):
    """How episodes are drawn; the factory is the function, see `fssbench.episodes.sampler`."""


@attrs.frozen(kw_only=True)
class ProtocolSpec(Spec):
    """How a manifest is made and how predictions are scored. The name is its immutable identity.

    Attributes:
        dataset: name of the dataset.
        split: which of its splits the episodes are drawn from.
        sampler: name of the sampler.
        episodes: how many, or None for as many as the sampler makes of the lists.
        min_pixels: an image is listed for a class that covers at least this many of its pixels.
        rare: what happens to a class with too few listed images: an ``error`` when there are fewer
            than K+1; or (``drop``) a class with fewer than 6 (K+1 for more than 5 shots) is left
            out and named in manifest and record.
        draw_key: what the random draws are keyed by, beside fold, shots and seed; "" for the name.
            A control names the protocol whose very episodes it changes.
        score_size: predictions are scored at the ``original`` size of the query image, or at the
            matcher's ``input`` size (the mask is then resized with nearest neighbour).
        void: pixels of 255 in the query's mask are in no count (``ignore``), or they are counted as
            ``background``.
        lists: ``"package.module:function"`` that reads authors' list files, which a person must
            point to (``--lists``), see `fssbench.episodes.literature.lists`; "" makes the lists of
            the dataset. With list files, `min_pixels` and `rare` are not used.
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
    lists: str = attrs.field(default="", validator=_check_factory)


@attrs.frozen(kw_only=True)
class BackboneSpec(Spec):
    """A frozen encoder; its factory is called as ``factory(weights=str, **arguments)``.

    The weights are ``pretrained``, ``random`` or a file; or ``none``, on torch's meta device, when
    only names and shapes of the layers are asked for.
    """


@attrs.frozen(kw_only=True)
class MatcherSpec(Spec):
    """A method; its factory is called as ``factory(config=config, backbone=BackboneInfo)``.

    Attributes:
        stages: ``"package.module:function"`` that takes the matcher and returns the sequence of its
            training stages, `fssbench.Stage` objects in order; "" for a method without training.
        recipes: ``"package:recipes.toml"``, a file beside the package's ``__init__.py`` (or beside
            the module) with the hyper-parameters of the stages; "" for a method without training.
        importer: ``"package.module:function"`` that understands the authors' own checkpoint files,
            see `fssbench.importing`; "" if there is none.
        parameter_counts: by the name of a backbone, how many learnable parameters the method has
            there with its options' defaults; what a paper says, and `fssbench plugin check` checks.
    """

    stages: str = attrs.field(default="", validator=_check_factory)
    recipes: str = ""
    importer: str = attrs.field(default="", validator=_check_factory)
    parameter_counts: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class MetricSpec(Spec):
    """A metric; its factory is called as ``factory(**arguments)``."""


def resolve(path: str, name: str) -> Any:
    """Import the object that a spec names as ``"package.module:Name"``.

    Args:
        path: the object.
        name: name of the spec, for the message.

    Raises:
        FssbenchError: there is no path, or the object cannot be imported.
    """
    module_name, _, attribute = path.partition(":")
    if not path:
        raise FssbenchError(f"{name} has no factory, so there is nothing to make; mend its spec")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise FssbenchError(f"{name}: cannot import {path}: {error}") from error
