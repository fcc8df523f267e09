"""Correlation map distillation (section 3.4): coarse maps are the teachers of finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fssbench_hdmnet.maps import resize_areas

Distillation = Literal["none", "ce", "ce-kd", "kl-kd"]

_OUTSIDE = -1e9  # as in the authors' code: a softmax makes it zero


def distillation_losses(
    maps: Sequence[Tensor], masks: Tensor, *, kind: Distillation, temperature: float
) -> list[Tensor]:
    """Return one loss for each stage; their sum is the distillation loss.

    ``kl-kd`` is equation 9: each map's teacher is the next coarser one, detached and resized, and
    the coarsest one's is the ground truth. The others are rows of table 6, for which the paper
    prints no formula: ``ce`` is the cross entropy with the ground truth at every stage, and
    ``ce-kd`` adds the cross entropy with the next coarser map. (Cross entropy with that map alone
    would be ``kl-kd``: the two differ by the teacher's entropy, which has no gradient.)

    A map is normalised to a distribution over its positions (equation 8), and so is the ground
    truth: it is uniform over the object, at a coarser size over the positions that lie completely
    inside of it.

    Args:
        maps: correlation maps, fine to coarse, (B, h, w) each.
        masks: masks, float (B, S, S), 1 on the object and 0 elsewhere.
        kind: kind of the loss; not ``none``.
        temperature: T of equation 8.

    Returns:
        Scalars, fine to coarse, each divided by the number of stages.
    """
    truth = torch.where(masks > 0, 1.0, _OUTSIDE)
    teacher = truth
    losses = []
    for student in reversed(maps):
        student = student.float()
        if kind == "kl-kd":
            loss = _divergence(teacher, student, temperature, entropy=True)
        else:
            loss = _divergence(truth, student, temperature)
            if kind == "ce-kd" and teacher is not truth:
                loss = loss + _divergence(teacher, student, temperature)
        losses.append(loss / len(maps))
        teacher = student.detach()
    return losses[::-1]


def _divergence(
    teacher: Tensor, student: Tensor, temperature: float, *, entropy: bool = False
) -> Tensor:
    """Return the cross entropy of (B, h, w) maps, or with `entropy` the KL divergence."""
    teacher = resize_areas(teacher.unsqueeze(1), student.shape[-2:])
    target = (teacher.flatten(1) / temperature).softmax(1)
    found = (student.flatten(1) / temperature).softmax(1)
    terms = -target * torch.log(found + 1e-12)
    if entropy:
        terms = terms + target * torch.log(target + 1e-12)
    return terms.sum(1).mean()
