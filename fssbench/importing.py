"""Conversion of authors' own weight files to checkpoints of fssbench."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from fssbench import build, registry
from fssbench.backbones.weights import mismatch, read_tensors, without_head
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.matchers.image_matcher import ImageMatcher
from fssbench.matchers.matcher import Matcher, config_of
from fssbench.model import ModelSource, model_source
from fssbench.specs import MatcherSpec

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Imported:
    """The tensors of an authors' file, renamed by a plugin's importer.

    Attributes:
        weights: tensors of the matcher by its own names. A tensor that the importer does not know
            retains its name in the file and is reported to the user.
        names: authors' name of each tensor of the matcher, for messages.
        backbone: tensors of the backbone by the names in its own weight files; empty if the file
            has none.
        config: options of the matcher that these weights need.
    """

    weights: Mapping[str, Tensor]
    names: Mapping[str, str] = attrs.field(factory=dict)
    backbone: Mapping[str, Tensor] = attrs.field(factory=dict)
    config: Mapping[str, Any] = attrs.field(factory=dict)


Importer = Callable[[Mapping[str, Tensor], Any], Imported]
"""Type of the function of `MatcherSpec.importer`.

It takes all tensors of the file, without wrappers such as ``state_dict`` and ``module.``, and the
backbone's layers; for an image matcher, None. It matches tensors by name, never by position.
"""


def import_checkpoint(
    source: Path, out: Path, *, matcher: str, backbone: str = "",
    encoders: Mapping[str, str] = {}, options: Mapping[str, Any] = {},
    header: Mapping[str, Any] = {},
) -> bool:  # fmt: skip
    """Write a checkpoint of fssbench from an authors' file.

    Args:
        source: file of the authors; nothing in it is executed.
        out: checkpoint to write, usually ``….safetensors``.
        matcher: registered name of the method.
        backbone: registered name of the encoder that the file was trained with.
        encoders: names of the encoders of an image matcher by role, instead of its defaults.
        options: options of the method, which override those that the importer infers.
        header: further entries of the checkpoint's header, e.g. ``dataset`` and ``fold``; None
            values are omitted.

    Returns:
        True if the checkpoint holds the backbone's weights.

    Raises:
        FssbenchError: a name is unknown, the method has no importer, or the file does not fit.
    """
    known = registry.registry()
    spec = known.get(MatcherSpec, matcher)
    importer: Importer = registry.load_importer(spec)
    if spec.encoders is None and not backbone:
        raise FssbenchError(f"{spec.name}: give the encoder of the file with --backbone NAME")
    source_of = model_source(spec.name, backbone, "random", options=options, encoders=encoders)
    backbone = source_of.backbone
    file = read_tensors(source)
    if not file:
        raise FssbenchError(f"{source}: holds no tensors; give the authors' checkpoint")
    made = _untrained(source_of)
    imported = importer(file, made.backbone if isinstance(made, Matcher) else None)
    if imported.config:
        made = _untrained(attrs.evolve(source_of, options={**imported.config, **options}))
    expected, found = (
        {imported.names.get(name, name): tensor for name, tensor in tensors.items()}
        for tensors in (made.state_dict(), imported.weights)
    )
    reasons = mismatch(expected, found)
    if reasons:
        raise FssbenchError(
            f"{source}: no checkpoint of {spec.name} on {backbone}: {reasons}; is --backbone right?"
        )
    made.load_state_dict(dict(imported.weights))
    if isinstance(made, Matcher):
        made.request().check(made.backbone)
    encoder = without_head(imported.backbone)
    described = {
        "matcher": spec.name,
        "config": config_of(made),
        "backbone": backbone,
        "imported": source.name,
        **{name: value for name, value in header.items() if value is not None},
    }
    if encoder:
        with tempfile.TemporaryDirectory() as folder:
            trial = Path(folder) / f"{source.stem}.safetensors"
            write_checkpoint(trial, made, described, encoder)
            build.backbone(backbone, trial)  # raises an error for weights of another encoder
    write_checkpoint(out, made, described, encoder)
    if imported.config:
        read = " ".join(f"-o {name}={value}" for name, value in imported.config.items())
        log.warning("%s: options read from the file, unless given with -o: %s", source.name, read)
    return bool(encoder)


def _untrained(source: ModelSource) -> Matcher | ImageMatcher:
    """Return a matcher without trained weights; encoders of an image matcher are random."""
    if source.encoders is None:
        return build.matcher(source.matcher, source.backbone, **source.options)
    return source.load_images()
