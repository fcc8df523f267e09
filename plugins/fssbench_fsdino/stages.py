"""The training stages of FS-DINO, and the one on episodes (section 3.4.3)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from fssbench import (
    EpisodeBatch,
    FssbenchError,
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
    return (*distillation(), Meta())


class Meta(Stage):
    """Prompts and decoder learn on episodes; encoder and adapter are frozen.

    Parameters that have no effect on the single mask (the decoder's heads for further masks and
    for their quality) are not trained. The group ``decoder`` is SAM's decoder with its mask
    downscaling and the Gaussian matrix of positions; ``prompts`` are the modules without
    pretrained weights.
    """

    name = "meta"
    parts = ("sam",)
    # The rows of table 4 start from the same distilled adapter.
    inherits = MappingProxyType({stage.name: ("adapter.",) for stage in distillation()})
    summary = "episodes; Dice and cross entropy of prior and final mask; encoder and adapter frozen"

    def prepare(self, matcher: Segmenter, context: StageContext) -> Mapping[str, Any]:
        """Load SAM's decoder (``--weights sam=FILE``), and log a warning for random weights.

        Raises:
            FssbenchError: the file is not a SAM checkpoint, or ``width`` differs from SAM's.
        """
        file = context.weights.get("sam")
        if not context.started and matcher.config.adapter == "frozen":
            log.warning(
                "%s: the adapter has random weights and is frozen; give --init a checkpoint of "
                "distillation, or train it with -o adapter=trained",
                matcher.method,
            )
        if file is None:
            frozen = " and is frozen" if not self.decoder_groups(matcher) else ""
            if not context.started or frozen:
                log.warning(
                    "%s: the mask decoder has random weights%s; give --weights sam=FILE, one of "
                    "SAM's checkpoints", matcher.method, frozen,
                )  # fmt: skip
            return {}
        path = Path(file)
        load_sam(matcher, read_tensors(path), path.name)
        return {"sam": {"name": path.name, "sha256": sha256(path)}}

    def parameters(self, matcher: Any, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return ``prompts`` and ``decoder``, and with ``adapter=trained`` also ``adapter``.

        Raises:
            FssbenchError: all of them are frozen or empty.
        """
        prompts = list(nn.ModuleList(matcher.prompting).parameters())
        groups = [ParameterGroup(name="prompts", parameters=prompts), *self.decoder_groups(matcher)]
        if matcher.config.adapter == "trained":
            adapter = list(matcher.adapter.parameters())
            groups.append(ParameterGroup(name="adapter", parameters=adapter))
        found = [group for group in groups if group.parameters]
        if not found:
            raise FssbenchError(
                f"{matcher.method}: with prompts={matcher.config.prompts} and a frozen decoder "
                "nothing is left to train; evaluate the checkpoint as it is"
            )
        return found

    def decoder_groups(self, matcher: Segmenter) -> list[ParameterGroup]:
        """Return the trained modules of SAM as group ``decoder``."""
        others = nn.ModuleList([matcher.downscaling, matcher.positions])
        used = [*matcher.decoder.used(), *others.parameters()]
        return [ParameterGroup(name="decoder", parameters=used)]

    def losses(self, matcher: Segmenter, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return the losses of equations 6 to 8, at the size of the encoder's input.

        Args:
            matcher: FS-DINO, or a method that extends it.
            batch: B episodes of K shots.

        Returns:
            ``dice`` and ``bce`` of the final mask; with 4D correlations also ``prior_dice`` and
            ``prior_bce``. A similarity map alone has no parameters, so without correlations there
            is no prior to supervise.
        """
        support = embed_episodes(matcher, batch.support, batch.support_masks)
        masks = matcher.masks(together(matcher.prepare_query(batch.query)), support)
        weight = matcher.config.foreground_weight
        return mask_losses(masks.final, masks.prior, batch.query_masks, weight)
