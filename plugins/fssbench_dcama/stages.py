"""Training stage of DCAMA: 1-shot episodes, with one loss on the final mask (section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from fssbench import EpisodeBatch, Stage

if TYPE_CHECKING:
    from fssbench_dcama.model import Dcama


def stages(matcher: Dcama) -> tuple[Stage, ...]:
    """Return the only stage, on 1-shot episodes."""
    return (Meta(),)


class Meta(Stage):
    """Episodic training of everything but the backbone.

    The paper's mean binary cross entropy of a softmax over two channels is that of a sigmoid of
    their difference. Ignored pixels (255) count as background, as in the authors' code.
    """

    name = "meta"
    summary = "1-shot episodes, binary cross entropy of the query mask; the backbone stays frozen"
    counts_ignored = True

    def losses(self, matcher: Dcama, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return ``bce``, the binary cross entropy: the mean over all pixels of all queries.

        Args:
            matcher: DCAMA, in training mode.
            batch: B episodes of one shot, with masks at the matcher's input size.
        """
        logits = matcher(batch.query, batch.support, batch.support_masks)  # (B, S, S)
        target = (batch.query_masks == 1).float()
        return {"bce": functional.binary_cross_entropy_with_logits(logits.float(), target)}
