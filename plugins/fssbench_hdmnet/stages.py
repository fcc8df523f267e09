"""The training stages of HDMNet: base learner with its encoder, then matching on episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import (
    EpisodeBatch,
    FssbenchError,
    LabelledBatch,
    Matcher,
    ParameterGroup,
    Recipe,
    Stage,
    StageContext,
    embed_episodes,
)
from fssbench.nn import resize
from fssbench_hdmnet.base import BaseLearner, base_channels, check_base_classes
from fssbench_hdmnet.distillation import distillation_losses

if TYPE_CHECKING:
    from fssbench_hdmnet.model import HdmNet

_HEAD_SCALE = 10.0


def stages(matcher: HdmNet) -> tuple[Stage, ...]:
    """Return the stage of the base learner with its encoder, and the one of all else."""
    return (Base(learner=matcher.base, layer=matcher.deepest), Meta())


class Base(Stage):
    """Semantic segmentation of the fold's base classes by PSPNet (HDMNet, section 4.3, after BAM).

    Encoder and base learner are trained together, batch norm included, and both are in the
    checkpoint, from which the stage `meta` starts (``--init``). Pixels of novel classes are
    background, and images that show them are kept, as in BAM's code.

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
        """Return the base learner as group ``base``; the trainer adds the group ``backbone``."""
        del matcher, recipe
        return [ParameterGroup(name="base", parameters=list(self.learner.parameters()))]

    def losses(self, matcher: Any, batch: LabelledBatch) -> dict[str, Tensor]:
        """Return ``ce``, the cross entropy: the mean over all pixels that are not ignored.

        Args:
            matcher: HDMNet, unused.
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


class Meta(Stage):
    """Cross entropy of final and meta outputs, and distillation of correlation maps.

    As in the authors' code, and not in the paper: cross entropy takes the merged probabilities of
    the final output for logits; the base learner's probability of the episode's class is left out
    of the merge; batch norm, also that of the decoder, which is trained, keeps its running
    statistics, so that it is an affine map; everything outside of the transformer learns ten times
    as fast; the K-shot reweighting is not trained.
    """

    name = "meta"
    summary = "episodes; cross entropy of both outputs, distillation; base learner frozen"
    wants_labels = True
    inherits = MappingProxyType({"base": ("base.",)})

    def prepare(self, matcher: Any, context: StageContext) -> Mapping[str, Any]:
        """Check that a base learner is available.

        Raises:
            FssbenchError: training does not start from a checkpoint.
        """
        del matcher
        if not context.started:
            raise FssbenchError(
                "hdmnet, stage meta: there is no trained base learner; train stage base first and "
                "give its last.safetensors with --init"
            )
        return {}

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return the parameter groups of the authors' optimiser."""
        del recipe
        net: Any = matcher
        transformer = [net.pyramid, net.matching, net.decoder]
        heads: dict[str, nn.Module] = {
            "reduce_support": net.reduce_support,
            "reduce_query": net.reduce_query,
            "merge_support": net.merge_support,
            "merge_query": net.merge_query,
        }
        if net.ensemble is not None:
            heads["gram_merge"] = net.ensemble.gram_merge
            heads["base_merge"] = net.ensemble.base_merge
        return [
            ParameterGroup(
                name="transformer",
                parameters=[p for module in transformer for p in module.parameters()],
            ),
            *(
                ParameterGroup(
                    name=name, parameters=list(module.parameters()), lr_scale=_HEAD_SCALE
                )
                for name, module in heads.items()
            ),
        ]

    def training_mode(self, matcher: Matcher) -> None:
        """Enable dropout, also the base learner's; freeze batch norm."""
        matcher.train()
        for module in matcher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def losses(self, matcher: HdmNet, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return losses by name, means over all pixels of all queries that are not ignored.

        * ``final``, ``meta``: cross entropy of these outputs (``final`` with the ensemble only);
        * ``distillation1`` (fine) to ``distillationL`` (coarse): see `distillation_losses`;
        * ``base``: cross entropy of the base learner, if the batch has labels. Nothing is trained
          by it; it is only reported, as in the authors' code.

        Args:
            matcher: HDMNet.
            batch: B episodes; masks at the input's size.

        Raises:
            FssbenchError: the base learner was made for another number of classes.
        """
        config = matcher.config
        check_base_classes(config.base_classes, batch.classes)
        support = embed_episodes(matcher, batch.support, batch.support_masks)
        current = base_channels(batch.class_ids, batch.classes)
        found = matcher.outputs(matcher.prepare_query(batch.query), support, left_out=current)
        masks = batch.query_masks
        losses = {}
        if matcher.ensemble is not None:
            losses["final"] = margin_loss(matcher.margin(found.final, masks.shape[-1]), masks)
        losses["meta"] = margin_loss(matcher.margin(found.meta, masks.shape[-1]), masks)
        if config.distillation != "none":
            each = distillation_losses(
                found.correlations,
                (masks == 1).float(),
                kind=config.distillation,
                temperature=config.distillation_temperature,
            )
            losses |= {f"distillation{n}": loss for n, loss in enumerate(each, start=1)}
        if found.base is not None and batch.query_labels is not None:
            base = resize(found.base.float(), batch.query_labels.shape[-2:])
            losses["base"] = cross_entropy(base, batch.query_labels.long())
        return losses


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over pixels that are not 255 (ignore); 0, not NaN, if all of them are.

    Args:
        logits: float (B, classes, H, W).
        labels: int64 (B, H, W).
    """
    total = functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum")
    return total / torch.count_nonzero(labels != 255).clamp(min=1)


def margin_loss(margins: Tensor, masks: Tensor) -> Tensor:
    """Return the cross entropy of two channels, from their difference.

    Args:
        margins: foreground minus background, (B, S, S).
        masks: uint8 (B, S, S); 255 is left out.

    Returns:
        The mean over pixels; 0 where all are left out.
    """
    counted = masks != 255
    signed = torch.where(masks == 1, -margins, margins)
    each = functional.softplus(signed) * counted
    return each.sum() / counted.sum().clamp(min=1)
