"""Training stage of HSNet: 1-shot episodes, with one loss on the final mask (section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from fssbench import EpisodeBatch, FssbenchError, Stage

if TYPE_CHECKING:
    from fssbench_hsnet.model import HsNet


def stages(matcher: HsNet) -> tuple[Stage, ...]:
    """Return the only stage, on 1-shot episodes."""
    return (Meta(),)


class Meta(Stage):
    """Episodic training of everything but the backbone.

    The cross entropy of a softmax over two channels is that of a sigmoid of their difference.
    Ignored pixels (255) count as background, as in the authors' code.
    """

    name = "meta"
    summary = "1-shot episodes, cross entropy of the query mask; the backbone stays frozen"
    counts_ignored = True

    def losses(self, matcher: HsNet, batch: EpisodeBatch) -> dict[str, Tensor]:
        """Return ``ce``, the cross entropy: the mean over all pixels of all queries.

        Args:
            matcher: HSNet, in training mode.
            batch: B episodes of one shot, with masks at the matcher's input size.

        Raises:
            FssbenchError: the episodes have several shots, whose votes have no gradient.
        """
        if batch.support_masks.shape[1] > 1:
            raise FssbenchError("hsnet is trained on 1-shot episodes; set shots = 1 in the recipe")
        logits = matcher(batch.query, batch.support, batch.support_masks)  # (B, S, S)
        target = (batch.query_masks == 1).float()
        return {"ce": functional.binary_cross_entropy_with_logits(logits.float(), target)}
