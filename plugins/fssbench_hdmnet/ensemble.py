"""The ensemble of matching and base learner, as in BAM (section 4.3, "Ens.").

Lang, Cheng, Tu, Han: "Learning What Not to Segment: A New Perspective on Few-Shot Segmentation",
CVPR 2022, sections 4.3 and 4.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_REWEIGHTING = 2  # hidden channels of the K-shot reweighting


def gram(features: Tensor) -> Tensor:
    """Return the cosines between channels: (B, C, h, w) to (B, C, C), in [-1, 1]."""
    channels = functional.normalize(features.flatten(2), dim=2)
    return channels @ channels.transpose(1, 2)


class Ensemble(nn.Module):
    """Merges the meta learner's probabilities with those of the base learner.

    Both merges have two weights and no bias, and are initialised to (1, 0), so that the output is
    first that of the meta learner. The output is merged *probabilities*; the authors' code takes
    their cross entropy as if they were logits, and so does the stage `meta`.

    Args:
        shots: K that the model is trained for. For 2 or more there is a reweighting of the shots'
            differences, which is in no optimiser group of the authors and is never trained.
    """

    def __init__(self, *, shots: int) -> None:
        super().__init__()
        self.shots = shots
        self.gram_merge = nn.Conv2d(2, 1, 1, bias=False)
        self.base_merge = nn.Conv2d(2, 1, 1, bias=False)
        for merge in (self.gram_merge, self.base_merge):
            with torch.no_grad():
                merge.weight.copy_(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1))
        if shots > 1:
            self.reweight = nn.Sequential(
                nn.Conv2d(shots, _REWEIGHTING, 1), nn.ReLU(), nn.Conv2d(_REWEIGHTING, shots, 1)
            ).requires_grad_(False)

    def difference(self, query: Tensor, supports: Tensor) -> Tensor:
        """Return the difference of the scenes, the adjustment factor psi of BAM (equation 8).

        For K shots the weights are computed from the differences in ascending order. The authors'
        code does not restore the order of the shots before it applies them, and neither does this.
        Supports of another number than `shots` have equal weights.

        Args:
            query: result of `gram`, (B, C, C).
            supports: results of `gram`, (B, K, C, C).

        Returns:
            (B, 1, 1, 1), in [0, 2].
        """
        channels = query.shape[-1]
        apart = (query.unsqueeze(1) - supports).float()
        each: Tensor = torch.linalg.matrix_norm(apart) / channels  # (B, K)
        if self.shots == 1 or each.shape[1] != self.shots:
            return each.mean(1)[:, None, None, None]
        weights = self.reweight(each.sort(1)[0][:, :, None, None]).softmax(1)
        total: Tensor = (weights * each[:, :, None, None]).sum(1, keepdim=True)
        return total

    def forward(self, meta: Tensor, base: Tensor, difference: Tensor) -> Tensor:
        """Merge (BAM, equations 9 and 10).

        Args:
            meta: probabilities of background and foreground, (B, 2, h, w).
            base: probability of any base class (in training, but the episode's), (B, 1, h, w).
            difference: result of `difference`.

        Returns:
            (B, 2, h, w); foreground where the second is larger.
        """
        factor = difference.to(meta.dtype).expand_as(base)
        background, foreground = (
            self.gram_merge(torch.cat([plane, factor], 1)) for plane in (meta[:, :1], meta[:, 1:])
        )
        background = self.base_merge(torch.cat([background, base.to(background.dtype)], 1))
        return torch.cat([background, foreground], 1)
