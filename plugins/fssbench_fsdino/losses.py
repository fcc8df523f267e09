"""Losses of masks, Dice and binary cross entropy (section 3.4.3, equations 6 and 7)."""

from __future__ import annotations

from torch import Tensor

from fssbench.nn import mask_bce, resize

IGNORE = 255


def dice_loss(logits: Tensor, masks: Tensor, smooth: float = 1.0) -> Tensor:
    """Return one minus the Dice coefficient of probabilities (Milletari et al., V-Net, 3DV 2016).

    1 - (2 Σ p g + s) / (Σ p + Σ g + s), with plain sums in the denominator, for each sample; then
    the mean over samples. The paper prints no formula; s avoids a division by zero for empty masks.

    Args:
        logits: float (B, H, W).
        masks: uint8 (B, H, W) of 0, 1 and 255; pixels of 255 are ignored.
        smooth: smoothing term s, in pixels.

    Returns:
        Scalar in [0, 1).
    """
    valid = (masks != IGNORE).flatten(1)
    truth = (masks == 1).flatten(1).float()
    found = logits.flatten(1).float().sigmoid() * valid
    overlap = (found * truth).sum(1)
    total = found.sum(1) + truth.sum(1)
    return (1 - (2 * overlap + smooth) / (total + smooth)).mean()


def mask_losses(
    final: Tensor, prior: Tensor | None, truth: Tensor, foreground_weight: float = 1.0
) -> dict[str, Tensor]:
    """Return Dice and cross entropy of the final mask and of the prior mask (equation 8).

    Args:
        final: logits of the final mask, float (B, h, w); they are resized to the target's size.
        prior: logits of the prior mask, float (B, h', w'); None without a prior.
        truth: target, uint8 (B, H, W) of 0, 1 and 255.
        foreground_weight: factor of the foreground's pixels in the cross entropies.

    Returns:
        ``dice`` and ``bce``; with a prior also ``prior_dice`` and ``prior_bce``.
    """
    losses = {}
    for prefix, logits in (("", final), ("prior_", prior)):
        if logits is not None:
            full = resize(logits[:, None].float(), truth.shape[-2:])[:, 0]
            losses[f"{prefix}dice"] = dice_loss(full, truth)
            losses[f"{prefix}bce"] = mask_bce(full, truth, foreground_weight)
    return losses
