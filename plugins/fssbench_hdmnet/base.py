"""The base learner: PSPNet's head, which classifies the base classes of a fold.

HDMNet takes it from BAM (Lang et al., CVPR 2022), which takes it from PSPNet; the module is
`fssbench.nn.PspHead`. It is trained supervised in the stage `base`; in the ensemble (HDMNet,
section 4.3) its probability of any base class is evidence for background.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def base_channels(class_ids: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the base learner's channel of each episode's class.

    Args:
        class_ids: class ids of the dataset, int64 (B,).
        classes: base classes of the fold, ascending, as in `EpisodeBatch.classes`.

    Returns:
        Int64 (B,): n for the n-th base class (from 1); 0, which is background, for any other.
    """
    known = torch.tensor((-1, *classes)).to(class_ids.device, non_blocking=True)
    return (class_ids[:, None] == known).int().argmax(1)


def any_base_class(logits: Tensor, left_out: Tensor | None) -> Tensor:
    """Return the summed probability of the base classes.

    Args:
        logits: logits of a base learner, (B, 1 + classes, h, w).
        left_out: channel to leave out of the sum beside background, int64 (B,), or None.

    Returns:
        (B, 1, h, w).
    """
    counted = torch.ones(logits.shape[:2], device=logits.device)
    counted[:, 0] = 0
    if left_out is not None:
        counted.scatter_(1, left_out.unsqueeze(1), 0)
    return torch.einsum("bnhw,bn->bhw", logits.float().softmax(1), counted).unsqueeze(1)
