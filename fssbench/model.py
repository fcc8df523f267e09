"""A model, that is a matcher with its encoder, from names or from a checkpoint."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.encoder import Encoder
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint, trained_encoder
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

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return the checkpoints of matcher and encoders by the option that names each.

        Raises:
            FssbenchError: a checkpoint is damaged.
        """
        own = self.checkpoint
        found = {} if own is None else {f"--checkpoint {own.name}": own}
        roles = {f"{role}=": file for role, file in self.encoder_weights.items()}
        files = {file: role for role, file in {**roles, "": self.weights}.items()}
        for file, role in files.items():
            if encoder := trained_encoder(file, own):
                found[f"--weights {role}{encoder.name}"] = encoder
        return found

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

    def matcher_on(self, frozen: Backbone | Mapping[str, Encoder]) -> Matcher | ImageMatcher:
        """Build the untrained matcher on encoders that are loaded already."""
        if isinstance(frozen, Backbone):
            return build.matcher(self.matcher, frozen, **self.options)
        return build.image_matcher(self.matcher, frozen, {}, **self.options)


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
