"""A model, that is a matcher with its encoder, from names or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.options import configure
from fssbench.results.record import trained_fold
from fssbench.specs import BackboneSpec, MatcherSpec

DEFAULT_MATCHER = "prototype"
DEFAULT_BACKBONE = "tiny-resnet"


@attrs.frozen(kw_only=True, eq=False)
class ModelSource:
    """Everything that a model is made of, checked before anything that takes long.

    Attributes:
        matcher: registered name of the matcher.
        backbone: registered name of the encoder.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        options: options of the matcher, on top of those that it was trained with.
        checkpoint: trained weights, or None.
    """

    matcher: str
    backbone: str
    weights: str
    options: Mapping[str, Any]
    checkpoint: Checkpoint | None

    def load(self) -> tuple[Matcher, Backbone]:
        """Build matcher and encoder, and load the trained weights.

        Raises:
            FssbenchError: weights are missing or do not fit.
        """
        backbone = build.backbone(self.backbone, self.weights)
        if self.checkpoint is not None:
            self.checkpoint.check_weights(backbone)
        matcher = build.matcher(self.matcher, backbone, **self.options)
        if self.checkpoint is not None:
            self.checkpoint.load_into(matcher)
        return matcher, backbone


def model_source(
    matcher: str = "",
    backbone: str = "",
    weights: str | Path = "pretrained",
    *,
    checkpoint: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> ModelSource:
    """Resolve the names of a model and check its options.

    Args:
        matcher: name of the matcher; "" for the checkpoint's, or ``prototype``.
        backbone: name of the encoder; "" for the checkpoint's, or ``tiny-resnet``.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        checkpoint: file of trained weights, or None.
        options: options of the matcher, instead of those that it was trained with.

    Raises:
        FssbenchError: an unknown name or option, an unreadable checkpoint, or one of another model.
    """
    trained = None if checkpoint is None else read_checkpoint(checkpoint)
    header = {} if trained is None else trained.header
    known = registry.registry()
    spec = known.get(MatcherSpec, matcher or header.get("matcher", DEFAULT_MATCHER))
    encoder = known.get(BackboneSpec, backbone or header.get("backbone", DEFAULT_BACKBONE))
    if trained is not None:
        trained.check_is("matcher", spec.name)
        trained.check_is("backbone", encoder.name)
        weights = trained.backbone_weights(str(weights))
    merged = {**header.get("config", {}), **(options or {})}
    configure(spec, merged)
    return ModelSource(
        matcher=spec.name,
        backbone=encoder.name,
        weights=str(weights),
        options=merged,
        checkpoint=trained,
    )


def check_trained_fold(
    checkpoint: Checkpoint, dataset: str, folds: Sequence[int], *, option: str, remedy: str = ""
) -> None:
    """Raise an `FssbenchError` if a checkpoint was trained on the novel classes of a fold.

    Args:
        checkpoint: trained weights.
        dataset: name of the dataset of the folds.
        folds: numbers of the folds that the checkpoint is used for.
        option: option of the command line that named the checkpoint.
        remedy: further advice of the message; ``{trained}`` is the fold that fits.
    """
    trained = trained_fold(checkpoint.header, dataset)
    for fold in folds:
        if trained not in (None, fold):
            raise FssbenchError(
                f"{option} {checkpoint.name}: it was trained for fold {trained}, so it has seen "
                f"the classes of fold {fold}{remedy.format(trained=trained)}"
            )
