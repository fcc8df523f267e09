"""Training stage of DCAMA: 1-shot episodes, with one loss on the final mask (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from fssbench import EpisodeBatch, Stage

if TYPE_CHECKING:
    from fssbench_dcama.config import DcamaConfig
    from fssbench_dcama.model import Dcama

IGNORE = 255


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
        """Return ``bce``, the binary cross entropy: the mean over the pixels of all queries.

        Args:
            matcher: DCAMA, in training mode.
            batch: B episodes of one shot, with masks at the matcher's input size.
        """
        logits = matcher(batch.query, batch.support, batch.support_masks).float()  # (B, S, S)
        target = (batch.query_masks == 1).float()
        weight = matcher.config.foreground_weight
        # Without a factor the gradient is rounded as before, so old trainings can be repeated.
        factor = None if weight == 1 else logits.new_tensor(weight)
        if self.counts_ignored:
            bce = functional.binary_cross_entropy_with_logits(logits, target, pos_weight=factor)
            return {"bce": bce}
        valid = (batch.query_masks != IGNORE).float()
        total = functional.binary_cross_entropy_with_logits(
            logits, target, weight=valid, pos_weight=factor, reduction="sum"
        )
        return {"bce": total / valid.sum().clamp(min=1)}
