"""Training stage of DCAMA: 1-shot episodes, with one loss on the final mask (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from fssbench import EpisodeBatch, Stage
from fssbench.nn import mask_bce

if TYPE_CHECKING:
    from fssbench_dcama.config import DcamaConfig
    from fssbench_dcama.model import Dcama


def stages(matcher: Dcama) -> tuple[Stage, ...]:
    """Return the only stage, on 1-shot episodes."""
    return (Meta(matcher.config),)


class Meta(Stage):
    """Episodic training of everything but the backbone.

    The paper's mean binary cross entropy of a softmax over two channels is that of a sigmoid of
    their difference. Ignored pixels (255) count as background by default, as in the authors' code.

    Args:
        config: options of the matcher.
    """

    name = "meta"
    summary = "1-shot episodes, binary cross entropy of the query mask; the backbone stays frozen"

    def __init__(self, config: DcamaConfig) -> None:
        self.counts_ignored = config.void == "background"

    def losses(self, matcher: Dcama, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return ``bce``, the binary cross entropy: the mean over a query's pixels, then queries.

        Args:
            matcher: DCAMA, in training mode.
            batch: B episodes of one shot, with masks at the matcher's input size.
        """
        logits = matcher(batch.query, batch.support, batch.support_masks)  # (B, S, S)
        weight = matcher.config.foreground_weight
        masks = batch.query_masks
        if not self.counts_ignored:
            return {"bce": mask_bce(logits, masks, weight)}
        # The mean over all pixels at once, so that old trainings can be repeated.
        factor = None if weight == 1 else logits.new_tensor(weight, dtype=torch.float32)
        bce = functional.binary_cross_entropy_with_logits(
            logits.float(), (masks == 1).float(), pos_weight=factor
        )
        return {"bce": bce}
