"""How FS-DINO is trained on episodes (section 3.4.3)."""

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
    Setting,
    Stage,
    read_tensors,
    sha256,
)
from fssbench_fsdino.checkpoint import load_sam
from fssbench_fsdino.distill import Distill
from fssbench_fsdino.losses import mask_losses

if TYPE_CHECKING:
    from fssbench_fsdino.model import FsDino

log = logging.getLogger(__name__)


class Meta(Stage):
    """Prompts and decoder learn on episodes; encoder and adapter are frozen.

    Parameters that the single mask does not depend on (the decoder's heads for further masks and
    for their quality) are not trained. The group ``decoder`` is SAM's decoder with its mask
    downscaling and the Gaussian matrix of positions; ``prompts`` is what starts from nothing.
    """

    name = "meta"
    parts = ("sam",)
    summary = "episodes; Dice and cross entropy of prior and final mask; encoder and adapter frozen"

    def prepare(self, matcher: FsDino, setting: Setting) -> Mapping[str, Any]:
        """Put SAM's decoder in (``--weights sam=FILE``), and say plainly what starts from nothing.

        Raises:
            FssbenchError: the file is none of SAM's, or the option ``width`` is not SAM's.
        """
        file = setting.weights.get("sam")
        if not setting.started and matcher.config.adapter == "frozen":
            log.warning(
                "fsdino: the adapter has random weights and is frozen; give --init a checkpoint of "
                "distillation, or train it with -o adapter=trained"
            )
        if file is None:
            if not setting.started:
                log.warning(
                    "fsdino: the mask decoder starts from random weights; give --weights sam=FILE, "
                    "one of SAM's checkpoints"
                )
            return {}
        load_sam(matcher, read_tensors(Path(file)), Path(file).name)
        return {"sam": {"name": Path(file).name, "sha256": sha256(Path(file))}}

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """``prompts`` and ``decoder``; and ``adapter`` with the option ``adapter=trained``."""
        model: FsDino = matcher  # type: ignore[assignment]
        del recipe
        fresh = [
            parameter
            for module in (model.semantic, model.initial, model.correlation)
            if module is not None
            for parameter in module.parameters()
        ]
        decoder = [
            *model.decoder.used(), *model.downscaling.parameters(), *model.positions.parameters(),
        ]  # fmt: skip
        groups = [ParameterGroup(name="prompts", parameters=fresh)] if fresh else []
        groups.append(ParameterGroup(name="decoder", parameters=decoder))
        if model.config.adapter == "trained":
            groups.append(
                ParameterGroup(name="adapter", parameters=list(model.adapter.parameters()))
            )
        return groups

    def losses(self, matcher: FsDino, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Equations 6 to 8, at the size of the encoder's input.

        Args:
            matcher: FS-DINO.
            batch: B episodes of K shots.

        Returns:
            ``dice`` and ``bce`` of the final mask; with the 4D branch also ``prior_dice`` and
            ``prior_bce``. The similarity map alone has no parameters, so without that branch there
            is no prior to supervise.
        """
        support = matcher.embed_support(batch.support, batch.support_masks)
        masks = matcher.masks(batch.query, support)
        return mask_losses(masks.final, masks.prior, batch.query_masks)


def stages(matcher: FsDino) -> tuple[Stage, ...]:
    """The stages of a matcher."""
    del matcher
    return (Distill(126), Distill(252), Distill(518), Meta())
