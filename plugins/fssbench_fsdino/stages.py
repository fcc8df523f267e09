"""The training stages of FS-DINO, and the one on episodes (section 3.4.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from fssbench import (
    EpisodeBatch,
    Matcher,
    ParameterGroup,
    Recipe,
    Stage,
    StageContext,
    embed_episodes,
    read_tensors,
    sha256,
)
from fssbench.nn import together
from fssbench_fsdino.checkpoint import load_sam
from fssbench_fsdino.distill import distillation
from fssbench_fsdino.losses import mask_losses

if TYPE_CHECKING:
    from fssbench_fsdino.segmenter import Segmenter

log = logging.getLogger(__name__)


def stages(matcher: Segmenter) -> tuple[Stage, ...]:
    """Return the three stages of distillation, coarse to fine, and the one on episodes."""
    del matcher
    return (*distillation(), Meta())


class Meta(Stage):
    """Prompts and decoder learn on episodes; encoder and adapter are frozen.

    Parameters that the single mask does not depend on (the decoder's heads for further masks and
    for their quality) are not trained. The group ``decoder`` is SAM's decoder with its mask
    downscaling and the Gaussian matrix of positions; ``prompts`` is what starts from nothing.
    """

    name = "meta"
    parts = ("sam",)
    summary = "episodes; Dice and cross entropy of prior and final mask; encoder and adapter frozen"

    def prepare(self, matcher: Segmenter, context: StageContext) -> Mapping[str, Any]:
        """Put SAM's decoder in (``--weights sam=FILE``), and say plainly what starts from nothing.

        Raises:
            FssbenchError: the file is none of SAM's, or the option ``width`` is not SAM's.
        """
        file = context.weights.get("sam")
        if not context.started and matcher.config.adapter == "frozen":
            log.warning(
                "%s: the adapter has random weights and is frozen; give --init a checkpoint of "
                "distillation, or train it with -o adapter=trained",
                matcher.method,
            )
        if file is None:
            frozen = not self.decoder_groups(matcher)
            if not context.started or frozen:
                log.warning(
                    "%s: the mask decoder has random weights%s; give --weights sam=FILE, one of "
                    "SAM's checkpoints",
                    matcher.method,
                    " and is frozen" if frozen else "",
                )
            return {}
        load_sam(matcher, read_tensors(Path(file)), Path(file).name)
        return {"sam": {"name": Path(file).name, "sha256": sha256(Path(file))}}

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """``prompts`` and ``decoder``; and ``adapter`` with the option ``adapter=trained``."""
        model: Segmenter = matcher  # type: ignore[assignment]
        del recipe
        fresh = [parameter for module in model.prompting for parameter in module.parameters()]
        groups = [ParameterGroup(name="prompts", parameters=fresh)] if fresh else []
        groups += self.decoder_groups(model)
        if model.config.adapter == "trained":
            groups.append(
                ParameterGroup(name="adapter", parameters=list(model.adapter.parameters()))
            )
        return groups

    def decoder_groups(self, matcher: Segmenter) -> list[ParameterGroup]:
        """Return the trained parameters of SAM's modules."""
        used = [
            *matcher.decoder.used(),
            *matcher.downscaling.parameters(),
            *matcher.positions.parameters(),
        ]
        return [ParameterGroup(name="decoder", parameters=used)]

    def losses(self, matcher: Segmenter, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Equations 6 to 8, at the size of the encoder's input.

        Args:
            matcher: FS-DINO, or a method on top of it.
            batch: B episodes of K shots.

        Returns:
            ``dice`` and ``bce`` of the final mask; with 4D correlations also ``prior_dice`` and
            ``prior_bce``. A similarity map alone has no parameters, so without correlations there
            is no prior to supervise.
        """
        support = embed_episodes(matcher, batch.support, batch.support_masks)
        masks = matcher.masks(together(matcher.prepare_query(batch.query)), support)
        return mask_losses(masks.final, masks.prior, batch.query_masks)
