"""Votes of several predictions."""

from __future__ import annotations

from torch import Tensor


def relative_votes(logits: Tensor) -> Tensor:
    """Return votes divided by the largest vote of the image (Min et al., HSNet, ICCV 2021).

    Foreground are the pixels with at least half of the largest vote, which is 1 or more.

    Args:
        logits: K predictions for each image, (B, K, h, w); above 0 is a vote for foreground.

    Returns:
        float32 (B, h, w) logits.
    """
    votes = (logits > 0).sum(1).float()
    most = votes.amax((1, 2), keepdim=True).clamp(min=1)
    # Votes are whole numbers, so that half a vote changes the sign of ties only.
    return (2 * votes - most + 0.5) / most
