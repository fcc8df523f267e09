"""Several shots as an ensemble of 1-shot predictions: what the paper compares with (table 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Ensemble:
    """K supports of one shot each.

    Attributes:
        members: the supports.
        weights: how far each is to be trusted, float (B, K); None for all the same.
    """

    members: Sequence[Any]
    weights: Tensor | None = None


def combine(logits: Sequence[Tensor], how: str, weights: Tensor | None = None) -> Tensor:
    """Join the logits of K 1-shot predictions.

    Args:
        logits: K tensors (B, h, w).
        how: ``voting`` (foreground where more than half say so), ``averaging`` (of foreground
            probabilities), ``hsnet`` (votes are divided by the largest vote of the image, and half
            of that is enough: Min et al., ICCV 2021), or ``scl`` (averaging with
            `weights`).
        weights: float (B, K), not negative.

    Returns:
        (B, h, w) logits.
    """
    each = torch.stack(list(logits), 1).float()  # (B, K, h, w)
    if how in ("voting", "hsnet"):
        votes = (each > 0).sum(1).float()
        if how == "voting":
            return 2 * votes / each.shape[1] - 1
        most = votes.amax((1, 2), keepdim=True).clamp(min=1)
        # Votes are whole numbers: half of one decides a tie and nothing else.
        return (2 * votes - most + 0.5) / most
    probabilities = each.sigmoid()
    if weights is None:
        mean = probabilities.mean(1)
    else:
        weights = weights + (weights.sum(1, keepdim=True) == 0)  # nobody is trusted: all the same
        weights = weights / weights.sum(1, keepdim=True)
        mean = (probabilities * weights[:, :, None, None]).sum(1)
    return mean.logit(eps=1e-6)


def guided_weights(
    segment: Callable[[Mapping[str, Tensor], Any], Tensor],
    features: Mapping[str, Tensor],
    masks: Tensor,
    supports: Sequence[Any],
) -> Tensor:
    """How well each support segments all K supports (Zhang, Xiao, Qin: SCL, CVPR 2021).

    Args:
        segment: logits of queries, given one support each.
        features: of the supports, (B, K, C, h, w) for each layer.
        masks: uint8 (B, K, H, W); 255 is left out.
        supports: K supports of one shot.

    Returns:
        float (B, K): mean IoU of the predictions that a support guides.
    """
    shots = masks.shape[1]
    scores = []
    for guide in supports:
        ious = []
        for k in range(shots):
            logits = segment({name: maps[:, k] for name, maps in features.items()}, guide)
            logits = torch.nn.functional.interpolate(
                logits[:, None], masks.shape[-2:], mode="bilinear", align_corners=True
            )[:, 0]
            found = (logits > 0) & (masks[:, k] != 255)
            truth = masks[:, k] == 1
            union = (found | truth).sum((1, 2)).clamp(min=1)
            ious.append((found & truth).sum((1, 2)) / union)
        scores.append(torch.stack(ious).mean(0))
    return torch.stack(scores, 1)
