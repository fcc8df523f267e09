"""How UINO-FSS is trained: FS-DINO's distillation, and episodes (sections IV-C2, IV-E, V-B)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

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
    from fssbench_uinofss.model import UinoFss

log = logging.getLogger(__name__)

DISTILLED = ("distill-126", "distill-252", "distill-518")


class Meta(Stage):
    """Prompts and decoder learn on episodes; encoder and adapter are frozen.

    The group ``prompts`` is what starts from nothing; ``decoder`` is SAM's decoder with its mask
    downscaling and the Gaussian matrix of positions. As in the paper's count (table IV) all of
    SAM's decoder is among the trained parameters; those that the single mask does not depend on
    (the heads of further masks and of quality) are the group ``idle`` and never change.
    """

    name = "meta"
    parts = ("sam",)
    summary = "episodes; Dice and cross entropy of prior and final mask; encoder and adapter frozen"
    # A distilled adapter is of use to all variants and ablations.
    inherits = dict.fromkeys(DISTILLED, ("adapter.",))

    def prepare(self, matcher: UinoFss, setting: Setting) -> Mapping[str, Any]:
        """Put SAM's decoder in (``--weights sam=FILE``), and say plainly what starts from nothing.

        Raises:
            FssbenchError: the file is none of SAM's, or the option ``width`` is not SAM's.
        """
        file = setting.weights.get("sam")
        if not setting.started and matcher.config.adapter == "frozen":
            log.warning(
                "uinofss: the adapter has random weights and is frozen; give --init a checkpoint "
                "of distillation, or train it with -o adapter=trained"
            )
        if file is None:
            if not setting.started or matcher.config.decoder == "frozen":
                log.warning(
                    "uinofss: the mask decoder has random weights%s; give --weights sam=FILE, one "
                    "of SAM's checkpoints",
                    " and is frozen" if matcher.config.decoder == "frozen" else "",
                )
            return {}
        load_sam(matcher, read_tensors(Path(file)), Path(file).name)  # type: ignore[arg-type]
        return {"sam": {"name": Path(file).name, "sha256": sha256(Path(file))}}

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """``prompts``; ``decoder`` and ``idle``; ``adapter``: what the options train."""
        model: UinoFss = matcher  # type: ignore[assignment]
        del recipe
        fresh = _parameters(model.semantic, model.initial, model.hypercorrelation, model.prior)
        groups = [ParameterGroup(name="prompts", parameters=fresh)] if fresh else []
        if model.config.decoder == "trained":
            used = [
                *model.decoder.used(), *_parameters(model.downscaling, model.positions),
            ]  # fmt: skip
            groups.append(ParameterGroup(name="decoder", parameters=used))
            groups.append(ParameterGroup(name="idle", parameters=_idle(model), weight_decay=0.0))
        if model.config.adapter == "trained":
            groups.append(ParameterGroup(name="adapter", parameters=_parameters(model.adapter)))
        return groups

    def losses(self, matcher: UinoFss, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Equations 12 to 14, at the size of the encoder's input.

        Args:
            matcher: UINO-FSS.
            batch: B episodes of K shots.

        Returns:
            ``dice`` and ``bce`` of the final mask, and with volumes ``prior_dice`` and
            ``prior_bce``. The compact models' similarity map has no parameters, so there is no
            prior to supervise.
        """
        support = matcher.embed_support(batch.support, batch.support_masks)
        masks = matcher.masks(batch.query, support)
        losses = mask_losses(masks.final, masks.prior, batch.query_masks)
        if matcher.config.decoder == "trained":
            # Data parallelism wants a gradient, if of zero, for all that is trained.
            losses["dice"] = losses["dice"] + sum(0 * each.sum() for each in _idle(matcher))
        return losses


def stages(matcher: UinoFss) -> tuple[Stage, ...]:
    """The stages of a matcher."""
    del matcher
    return (Distill(126), Distill(252), Distill(518), Meta())


def _idle(model: UinoFss) -> list[nn.Parameter]:
    used = {id(parameter) for parameter in model.decoder.used()}
    return [parameter for parameter in model.decoder.parameters() if id(parameter) not in used]


def _parameters(*modules: nn.Module | None) -> list[nn.Parameter]:
    return [p for module in modules if module is not None for p in module.parameters()]
