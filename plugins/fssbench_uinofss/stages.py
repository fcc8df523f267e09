"""Training stages of UINO-FSS: FS-DINO's distillation, and episodes (sections IV-C2, IV-E, V-B)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fssbench import EpisodeBatch, ParameterGroup, Stage
from fssbench_fsdino import stages as fsdino
from fssbench_fsdino.distill import distillation
from fssbench_fsdino.segmenter import Segmenter


def stages(matcher: Segmenter) -> tuple[Stage, ...]:
    """Return FS-DINO's three stages of distillation, coarse to fine, and the one on episodes."""
    return (*distillation(), Meta())


class Meta(fsdino.Meta):
    """FS-DINO's episodic stage, with the parameters that the option ``decoder`` adds.

    As in the paper's count (table IV) the trained parameters are all of SAM's decoder. Those that
    have no effect on the single mask (the heads of further masks and of quality) are the group
    ``idle`` and never change.
    """

    # All variants can start from the same distilled adapter, which is that of FS-DINO.
    siblings = ("fsdino", "uinofss", "uinofss-comp", "uinofss-comp-frozen")

    def decoder_groups(self, matcher: Any) -> list[ParameterGroup]:
        """Return the groups ``decoder`` and ``idle``, unless the decoder is frozen."""
        if matcher.config.decoder == "frozen":
            return []
        unused = matcher.decoder.used(wanted=False)
        idle = ParameterGroup(name="idle", parameters=unused, weight_decay=0.0)
        return [*super().decoder_groups(matcher), idle]

    def losses(self, matcher: Any, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return the losses of equations 12 to 14, by name, at the size of the encoder's input."""
        losses = super().losses(matcher, batch)
        if matcher.config.decoder == "trained":
            # Data parallelism needs a gradient, even zero, for every trained parameter.
            unused = matcher.decoder.used(wanted=False)
            losses["dice"] = losses["dice"] + sum(0 * each.sum() for each in unused)
        return losses
