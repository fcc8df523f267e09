"""How HDMNet's base learner is trained: supervised, on the base classes, with its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fssbench import LabelledBatch, Matcher, ParameterGroup, Recipe, Stage
from fssbench_hdmnet.base import BaseLearner, check_base_classes


class Base(Stage):
    """Semantic segmentation of the fold's base classes by PSPNet (HDMNet, section 4.3, after BAM).

    Encoder and base learner are trained together, batch norm included, and both are in the
    checkpoint, from which the stage `meta` starts (``--init``). Pixels of novel classes are
    background, and images that show them are kept, as in BAM's code.

    A matcher names it in `Matcher.stages`: ``Base(learner=self.base, layer="layer4")``.

    Args:
        learner: the matcher's base learner.
        layer: the requested layer that it reads.
    """

    name = "base"
    summary = "PSPNet on the base classes, with its encoder; cross entropy of all pixels"
    feeds = "labelled"
    trains_backbone = True
    updates_batch_norm = True
    validates = False

    def __init__(self, *, learner: BaseLearner, layer: str) -> None:
        self.learner = learner
        self.layer = layer

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """The base learner as group ``base``; the trainer adds the group ``backbone``."""
        del matcher, recipe
        return [ParameterGroup(name="base", parameters=list(self.learner.parameters()))]

    def losses(self, matcher: Any, batch: LabelledBatch) -> dict[str, Tensor]:
        """``ce``: cross entropy, the mean over all pixels that are not ignored.

        Args:
            matcher: HDMNet; not looked at.
            batch: B labelled images.

        Raises:
            FssbenchError: the base learner was made for another number of classes.
        """
        del matcher
        check_base_classes(self.learner.classes - 1, batch.classes)
        logits = functional.interpolate(
            self.learner(batch.features[self.layer]).float(),
            batch.labels.shape[-2:],
            mode="bilinear",
            align_corners=True,
        )  # (B, classes, S, S)
        return {"ce": cross_entropy(logits, batch.labels)}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the pixels that are not 255 (ignore); 0, not NaN, where all of them are.

    Args:
        logits: float (B, classes, H, W).
        labels: int64 (B, H, W).
    """
    total = functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
    return total / torch.count_nonzero(labels != 255).clamp(min=1)
