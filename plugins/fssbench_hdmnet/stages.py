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
from fssbench.nn import PspHead, cross_entropy, resize
from fssbench_hdmnet.base import base_channels
from fssbench_hdmnet.distillation import distillation_losses

if TYPE_CHECKING:
    from fssbench_hdmnet.model import HdmNet


def stages(matcher: HdmNet) -> tuple[Stage, ...]:
    """Return the stage of the base learner and its encoder, and the stage of all other modules."""
    return (Base(learner=matcher.base, layer=matcher.deepest), Meta())


class Base(Stage):
    """Semantic segmentation of the fold's base classes by PSPNet (HDMNet, section 4.3, after BAM).

    Encoder and base learner are trained together, batch norm included, and both are in the
    checkpoint, from which the stage `meta` starts (``--init``). Pixels of novel classes are
    background, as in BAM's code; the recipe's ``train_filter`` decides which images are trained on.

    Args:
        learner: base learner of the matcher.
        layer: requested layer that the base learner reads.
    """

    name = "base"
    summary = "PSPNet on the base classes, with its encoder; cross entropy of all pixels"
    feeds = "labelled"
    trains_backbone = True
    updates_batch_norm = True
    validates = False

    def __init__(self, *, learner: PspHead, layer: str) -> None:
        self.learner = learner
        self.layer = layer

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return the base learner as group ``base``; the trainer adds the group ``backbone``."""
        return [ParameterGroup(name="base", parameters=list(self.learner.parameters()))]

    def losses(self, matcher: Any, batch: LabelledBatch) -> dict[str, Tensor]:
        """Return ``ce``, the cross entropy: the mean over all pixels that are not ignored.

        Raises:
            FssbenchError: the base learner was made for another number of classes.
        """
        features = batch.features[self.layer]
        return {"ce": self.learner.loss(features, batch.labels, batch.classes)}


class Meta(Stage):
    """Cross entropy of final and meta outputs, and distillation of correlation maps.

    The following is in the authors' code but not in the paper. The cross entropy treats the merged
    probabilities of the final output as logits. The base learner's probability of the episode's
    class is left out of the merge. All batch norms, including those of the trained decoder, use
    their running statistics and so are affine maps. All modules outside of the transformer have ten
    times its learning rate. The K-shot reweighting is not trained.
    """

    name = "meta"
    summary = "episodes; cross entropy of both outputs, distillation; base learner frozen"
    wants_labels = True
    inherits = MappingProxyType({"base": ("base.",)})

    def prepare(self, matcher: Any, context: StageContext) -> Mapping[str, Any]:
        """Check that a base learner is available, and that episodes have the model's shots.

        Raises:
            FssbenchError: training does not start from a checkpoint, or K differs.
        """
        made_for, trained_with = matcher.config.shots, context.recipe.shots
        if made_for != trained_with:
            raise FssbenchError(
                f"hdmnet, stage meta: the model is made for {made_for} shots (-o shots) and would "
                f"be trained with {trained_with} (--shots); give both, e.g. --shots {trained_with} "
                f"-o shots={trained_with}"
            )
        if not context.started:
            raise FssbenchError(
                "hdmnet, stage meta: there is no trained base learner; train stage base first and "
                "give its last.safetensors with --init"
            )
        return {}

    def parameters(self, matcher: Any, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return the parameter groups of the authors' optimiser."""
        names = ("reduce_support", "reduce_query", "merge_support", "merge_query")
        heads = {name: getattr(matcher, name) for name in names}
        if matcher.ensemble is not None:
            heads |= {n: getattr(matcher.ensemble, n) for n in ("gram_merge", "base_merge")}
        transformer = nn.ModuleList([matcher.pyramid, matcher.matching, matcher.decoder])
        return [
            ParameterGroup(name="transformer", parameters=list(transformer.parameters())),
            *(
                ParameterGroup(name=name, parameters=list(head.parameters()), lr_scale=10.0)
                for name, head in heads.items()
            ),
        ]

    def training_mode(self, matcher: Matcher) -> None:
        """Enable dropout, also in the base learner, and freeze batch norm."""
        matcher.train()
        for module in matcher.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def losses(self, matcher: HdmNet, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return losses by name, means over all pixels of all queries that are not ignored.

        * ``final``, ``meta``: cross entropy of these outputs (``final`` with the ensemble only);
        * ``distillation1`` (fine) to ``distillationL`` (coarse): see `distillation_losses`;
        * ``base``: cross entropy of the base learner, if the batch has labels. It has no gradient
          and is only reported, as in the authors' code.

        Raises:
            FssbenchError: the base learner was made for another number of classes.
        """
        config = matcher.config
        matcher.base.check_classes(batch.classes)
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


def margin_loss(margins: Tensor, masks: Tensor) -> Tensor:
    """Return the cross entropy of two channels, from their difference.

    Args:
        margins: foreground minus background, (B, S, S).
        masks: masks, uint8 (B, S, S); pixels of 255 are ignored.

    Returns:
        Mean over the pixels; 0 if all are ignored.
    """
    counted = masks != 255
    signed = torch.where(masks == 1, -margins, margins)
    each = functional.softplus(signed) * counted
    return each.sum() / counted.sum().clamp(min=1)
