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
    """Cosines between channels: (B, C, h, w) to (B, C, C), in [-1, 1]."""
    channels = functional.normalize(features.flatten(2), dim=2)
    return channels @ channels.transpose(1, 2)


class Ensemble(nn.Module):
    """Merges the meta learner's probabilities with those of the base learner.

    Both merges have two weights and no bias, and start as (1, 0): at first the meta learner is all
    that counts. What comes out is merged *probabilities*; the authors' code takes the cross entropy
    of them as if they were logits, and so does the stage `meta`.

    Args:
        shots: K that the model is trained for. From 2 on there is a reweighting of the shots'
            differences, which the authors put into no optimiser group: it keeps its initial values.
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
                nn.Conv2d(shots, _REWEIGHTING, 1),
                nn.ReLU(),
                nn.Conv2d(_REWEIGHTING, shots, 1),
            ).requires_grad_(False)

    def difference(self, query: Tensor, supports: Tensor) -> Tensor:
        """How much the scenes differ: the adjustment factor psi of BAM (equation 8).

        For K shots the weights are made of the differences in ascending order, and the authors'
        code, which means to bring them back into the order of the shots, leaves them as they are:
        it is the differences in the order of the shots that they weigh. Supports of other than the
        `shots` that the model is made for are weighed equally.

        Args:
            query: of `gram`, (B, C, C).
            supports: (B, K, C, C).

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
            difference: of `difference`.

        Returns:
            (B, 2, h, w); foreground where the second is larger.
        """
        factor = difference.to(meta.dtype).expand_as(base)
        background, foreground = (
            self.gram_merge(torch.cat([plane, factor], 1)) for plane in (meta[:, :1], meta[:, 1:])
        )
        background = self.base_merge(torch.cat([background, base.to(background.dtype)], 1))
        return torch.cat([background, foreground], 1)
