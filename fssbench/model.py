"""A model, that is a matcher with its encoder, from names or from a checkpoint."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.image_matcher import ImageMatcher
from fssbench.matchers.matcher import Matcher
from fssbench.options import configure, from_record
from fssbench.results.record import trained_fold
from fssbench.specs import BackboneSpec, DatasetSpec, MatcherSpec

DEFAULT_MATCHER = "prototype"
DEFAULT_BACKBONE = "tiny-resnet"


@attrs.frozen(kw_only=True, eq=False)
class ModelSource:
    """Everything that a model is made of, checked before anything that takes long.

    Attributes:
        matcher: registered name of the matcher.
        backbone: registered name of the encoder.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        options: options of the matcher, with those of the checkpoint that were not changed.
        checkpoint: trained weights, or None.
        encoders: names of the encoders of an image matcher by role; None for a matcher with a
            backbone.
        encoder_weights: their weights by role, instead of `weights`.
    """

    matcher: str
    backbone: str
    weights: str
    options: Mapping[str, Any]
    checkpoint: Checkpoint | None
    encoders: Mapping[str, str] | None = None
    encoder_weights: Mapping[str, str] = attrs.field(factory=dict)

    def load_images(self) -> ImageMatcher:
        """Build an image matcher with its encoders, and load the trained weights.

        Raises:
            FssbenchError: weights are missing or do not fit.
        """
        weights = {**dict.fromkeys(self.encoders or (), self.weights), **self.encoder_weights}
        with _seeded():
            matcher = build.image_matcher(self.matcher, self.encoders, weights, **self.options)
        if self.checkpoint is not None:
            self.checkpoint.load_into(matcher)
        return matcher

    def load(self) -> tuple[Matcher, Backbone]:
        """Build matcher and encoder, and load the trained weights.

        Raises:
            FssbenchError: weights are missing or do not fit.
        """
        backbone = build.backbone(self.backbone, self.weights)
        if self.checkpoint is not None:
            self.checkpoint.check_weights(backbone)
        with _seeded():
            matcher = build.matcher(self.matcher, backbone, **self.options)
        if self.checkpoint is not None:
            self.checkpoint.load_into(matcher)
        return matcher, backbone


def model_source(
    matcher: str = "",
    backbone: str = "",
    weights: str | Path = "pretrained",
    *,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    encoders: Mapping[str, str] | None = None,
    encoder_weights: Mapping[str, str] | None = None,
) -> ModelSource:
    """Resolve the names of a model and check its options.

    Args:
        matcher: name of the matcher; "" for the checkpoint's, or ``prototype``.
        backbone: name of the encoder; "" for the checkpoint's, or the matcher's default.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        checkpoint: file of trained weights, or its address ``hf://…`` on the hub, or None.
        options: options of the matcher, instead of those that it was trained with.
        encoders: names of encoders of an image matcher by role, instead of its defaults.
        encoder_weights: their weights by role, instead of `weights`.

    Raises:
        FssbenchError: an unknown name, role or option, an unreadable checkpoint, or one of another
            model.
    """
    trained = None if checkpoint is None else read_checkpoint(checkpoint)
    header = {} if trained is None else trained.header
    known = registry.registry()
    spec = known.get(MatcherSpec, matcher or header.get("matcher", DEFAULT_MATCHER))
    names = None
    if spec.encoders is None:
        if encoders or encoder_weights:
            build.roles(spec, encoders)
        asked = backbone or header.get("backbone") or default_backbone(spec)
        backbone = known.get(BackboneSpec, asked).name
        _check_backbone(spec, backbone)
    else:
        if backbone:
            raise FssbenchError(
                f"--backbone {backbone}: matcher {spec.name} has the encoders "
                f"{', '.join(spec.encoders) or 'none'}; choose them with --encoder ROLE=NAME"
            )
        names = {
            role: known.get(BackboneSpec, name).name
            for role, name in build.roles(spec, encoders).items()
        }
        build.roles(spec, encoder_weights)
        backbone = joined(names)
    if trained is not None:
        trained.check_is("matcher", spec.name)
        trained.check_is("backbone", backbone)
        weights = trained.backbone_weights(str(weights))
    recorded = {} if trained is None else from_record(spec, header["config"])
    merged = {**recorded, **(options or {})}
    configure(spec, merged)
    return ModelSource(
        matcher=spec.name,
        backbone=backbone,
        weights=str(weights),
        options=merged,
        checkpoint=trained,
        encoders=names,
        encoder_weights=encoder_weights or {},
    )


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Draw untrained weights from one seed: equal in all processes and after resuming."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def joined(encoders: Mapping[str, str]) -> str:
    """Return the names of an image matcher's encoders as one name, e.g. for a run directory."""
    return "+".join(encoders.values()) or "none"


def default_backbone(spec: MatcherSpec) -> str:
    """Return the default backbone of a matcher."""
    return spec.backbones[0] if spec.backbones else DEFAULT_BACKBONE


def _check_backbone(spec: MatcherSpec, backbone: str) -> None:
    allowed = spec.backbones
    if allowed and not any(fnmatch.fnmatchcase(backbone, pattern) for pattern in allowed):
        raise FssbenchError(
            f"--backbone {backbone}: matcher {spec.name} takes {', '.join(allowed)}"
        )


def check_trained_fold(
    checkpoint: Checkpoint, folds_of: str, folds: Sequence[int], *, option: str, remedy: str = ""
) -> None:
    """Raise an `FssbenchError` if a checkpoint was trained on the novel classes of a fold.

    Args:
        checkpoint: trained weights.
        folds_of: name of the dataset whose folds are meant, see `Dataset.folds_of`.
        folds: numbers of the folds that the checkpoint is used for.
        option: option of the command line that named the checkpoint.
        remedy: further advice of the message; ``{trained}`` is the fold that fits.
    """
    trained = trained_fold(checkpoint.header, folds_of)
    for fold in folds:
        if trained not in (None, fold):
            raise FssbenchError(
                f"{option} {checkpoint.name}: it was trained for fold {trained}, so it has seen "
                f"the classes of fold {fold}{remedy.format(trained=trained)}"
            )


def trained_classes(header: Mapping[str, Any], dataset: Dataset) -> tuple[str, ...] | None:
    """Return the names of the base classes that a checkpoint was trained on; None if unknown.

    A header without them, of an older version or of an import, has them through its dataset and
    fold, if that is the tested dataset or one whose folds are always the same.

    Args:
        header: header of the checkpoint.
        dataset: tested dataset.
    """
    if "base_classes" in header:
        known = header["base_classes"]
        return None if known is None else tuple(map(str, known))
    name, fold = header.get("dataset") or dataset.folds_of, header.get("fold")
    if fold is None:
        return None
    classes: Sequence[str] = dataset.classes
    try:
        if name == dataset.name == dataset.folds_of:
            novel = dataset.fold_classes(fold)
        else:
            source = registry.load(registry.registry().get(DatasetSpec, name))
            classes, novel = source.classes, dict(enumerate(source.novel_classes))[fold]
    except (FssbenchError, AttributeError, KeyError):  # not registered, or no such fold
        return None
    return tuple(each for class_id, each in enumerate(classes) if class_id not in novel)


def unaccounted_parameters(
    matcher: Matcher | ImageMatcher, frozen: Sequence[nn.Module], checkpoint: Checkpoint | None
) -> tuple[str, ...]:
    """Return the parameters whose values come from no declared source, each group as a text.

    Declared sources are the checkpoint and the encoder's weights. Modules and parameters in plain
    attributes of the matcher and of its classes, which no checkpoint holds, in variables of
    functions there, and in global variables of the files of these classes are found too.

    Args:
        matcher: matcher, after the checkpoint was loaded.
        frozen: its encoders.
        checkpoint: trained weights, or None.
    """
    found = []
    own = sum(p.numel() for p in matcher.parameters())
    if own and checkpoint is None:
        found.append(f"{own:,} parameters of the matcher, without a checkpoint")
    seen = {id(module) for module in matcher.modules()} | {id(p) for p in matcher.parameters()}
    for encoder in frozen:
        weights: Any = encoder.weights
        count = sum(p.numel() for p in encoder.parameters())
        if count and not weights.sha256 and weights.source != "random":
            what = "the backbone" if isinstance(encoder, Backbone) else type(encoder).__name__
            which = "no weights" if weights.source == "none" else "weights without their sha256"
            found.append(f"{count:,} parameters of {what}, which declares {which}")
        seen |= {id(module) for module in encoder.modules()}
        seen |= {id(p) for p in encoder.parameters()}
    for path, module in list(matcher.named_modules()):
        for name, value in vars(module).items():
            if name in ("_modules", "_parameters", "_buffers"):
                continue
            where = ".".join(filter(None, (path, name)))
            found += [f"{text} in {where}" for text in _hidden(value, seen)]
    for kind in {type(module): None for module in matcher.modules()}:
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] in ("fssbench", "torch", "timm", "builtins"):
                continue
            file = sys.modules.get(base.__module__)
            for where, names in (
                (base.__name__, vars(base)),
                (f"the file of {base.__name__}", {} if file is None else vars(file)),
            ):
                for name, value in list(names.items()):
                    if isinstance(value, nn.Module | nn.Parameter | dict | list | tuple):
                        found += [f"{text} in {where}: {name}" for text in _hidden(value, seen)]
    return tuple(found)


def _hidden(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield a text for each module with parameters, and each parameter, in nested values."""
    for hidden in _modules_in(value, seen):
        alone = isinstance(hidden, nn.Parameter)
        count = hidden.numel() if alone else sum(p.numel() for p in hidden.parameters())
        if count:
            yield f"{count:,} parameters of {type(hidden).__name__}"


def _modules_in(value: Any, seen: set[int], depth: int = 8) -> Iterator[Any]:
    """Yield the modules and parameters in nested values that were not seen before."""
    if id(value) in seen or not depth or isinstance(value, str | bytes | type):
        return
    if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        return
    seen.add(id(value))
    if isinstance(value, nn.Parameter):
        yield value
        return
    if isinstance(value, nn.Module):
        seen.update(id(module) for module in value.modules())
        yield value
    elif isinstance(value, Mapping):
        for each in list(value.values()):
            yield from _modules_in(each, seen, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in list(value):
            yield from _modules_in(each, seen, depth - 1)
    elif isinstance(value, types.MethodType):
        yield from _modules_in(value.__self__, seen, depth - 1)
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                yield from _modules_in(cell.cell_contents, seen, depth - 1)
    elif isinstance(value, functools.partial):
        yield from _modules_in((value.func, value.args, value.keywords), seen, depth - 1)
    elif hasattr(value, "__dict__"):
        yield from _modules_in(vars(value), seen, depth - 1)
    elif attrs.has(type(value)):  # of slots, which have no __dict__
        fields = [getattr(value, field.name, None) for field in attrs.fields(type(value))]
        yield from _modules_in(fields, seen, depth - 1)
