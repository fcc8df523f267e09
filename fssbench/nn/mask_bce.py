"""Binary cross entropy of masks."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

IGNORE = 255


def mask_bce(logits: Tensor, masks: Tensor, foreground_weight: float = 1.0) -> Tensor:
    """Return the binary cross entropy: the mean over a sample's pixels, then over samples.

    The mean of each sample makes a batch in parts (``--accumulate``, ``--devices``) equal to the
    whole batch, however many pixels each of its samples ignores.

    Args:
        logits: float (B, H, W).
        masks: uint8 (B, H, W) of 0, 1 and 255; pixels of 255 are ignored.
        foreground_weight: factor of the foreground's pixels.

    Returns:
        Scalar.
    """
    valid = (masks != IGNORE).flatten(1).float()
    truth = (masks == 1).flatten(1).float()
    flat = logits.flatten(1).float()
    # Without a factor the gradient is rounded as before, so old trainings can be repeated.
    factor = None if foreground_weight == 1 else flat.new_tensor(foreground_weight)
    each = functional.binary_cross_entropy_with_logits(
        flat, truth, reduction="none", pos_weight=factor
    )
    return ((each * valid).sum(1) / valid.sum(1).clamp(min=1)).mean()
