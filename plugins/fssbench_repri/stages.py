"""Training stage of RePRI: the network on the base classes, without episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fssbench import (
    FssbenchError,
    LabelledBatch,
    Matcher,
    ParameterGroup,
    Recipe,
    Stage,
    StageContext,
)

if TYPE_CHECKING:
    from fssbench_repri.model import RePri

_SMOOTHING = 0.1  # of the labels, in the authors' code


def stages(matcher: RePri) -> tuple[Stage, ...]:
    """Return the only stage."""
    return (Base(),)


class Base(Stage):
    """Semantic segmentation of the fold's base classes by PSPNet.

    Encoder and head are trained together, batch norm included, and both are in the checkpoint.
    """

    name = "base"
    summary = "PSPNet on the base classes, with its encoder; cross entropy with smoothed labels"
    feeds = "labelled"
    trains_backbone = True
    updates_batch_norm = True

    def prepare(self, matcher: Any, context: StageContext) -> Mapping[str, Any]:
        """Check that there is a head to train.

        Raises:
            FssbenchError: the matcher has none.
        """
        if matcher.head is None:
            raise FssbenchError(
                "repri, stage base: -o head=none leaves no head to train; remove the option, or "
                "evaluate without training"
            )
        return {}

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return the head as group ``head``; the trainer adds the group ``backbone``."""
        return [ParameterGroup(name="head", parameters=list(matcher.parameters()))]

    def losses(self, matcher: RePri, batch: LabelledBatch) -> dict[str, Tensor]:
        """Return ``ce``, the cross entropy: the mean over all pixels that are not ignored.

        Raises:
            FssbenchError: the head was made for another number of classes.
        """
        assert matcher.head is not None
        features = matcher.joined(batch.features)
        return {
            "ce": matcher.head.loss(features, batch.labels, batch.classes, smoothing=_SMOOTHING)
        }
