"""The training stages of the method."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fssbench import EpisodeBatch, Stage
from fssbench.nn import masks_at
from fssbench_example.model import Example


def stages(matcher: Example) -> tuple[Stage, ...]:
    """Return the only stage, on episodes."""
    del matcher
    return (Episodes(),)


class Episodes(Stage):
    """Cross entropy of the query's pixels, ignored ones left out."""

    name = "episodes"
    summary = "cross entropy of the query's pixels"

    def losses(self, matcher: Example, batch: EpisodeBatch) -> dict[str, Tensor]:
        """``bce``, a mean over pixels."""
        logits = matcher(batch.query, batch.support, batch.support_masks)
        inside, outside = (masks_at(batch.query_masks, v, *logits.shape[-2:]) for v in (1, 0))
        loss = inside * functional.softplus(-logits) + outside * functional.softplus(logits)
        return {"bce": loss.sum() / (inside + outside).sum().clamp(min=1)}
