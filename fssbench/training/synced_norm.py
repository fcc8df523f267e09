"""Batch norm over the batches of all processes, on a CPU or GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn


def sync_batch_norm(module: nn.Module) -> None:
    """Let all batch norms of a module share their statistics between processes, in training.

    Names of tensors do not change. torch's own ``SyncBatchNorm`` refuses tensors of a CPU, and
    would replace subclasses of batch norm by itself, with what they do after it.

    Args:
        module: module in each process; its batch norms are changed in place.
    """
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d) and not isinstance(norm, _Synced):
            norm.__class__ = type(type(norm).__name__, (_Synced, type(norm)), {})


class _Synced(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of the maps of all processes."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training:
            return super().forward(input)
        maps = input.float()
        count = maps.numel() // maps.shape[1] * torch.distributed.get_world_size()
        mean = _sum_over_processes(maps.sum((0, 2, 3))) / count
        centred = maps - mean.view(-1, 1, 1)
        variance = _sum_over_processes(centred.square().sum((0, 2, 3))) / count
        self._update(mean.detach(), variance.detach() * count / max(1, count - 1))
        scale = (variance + self.eps).rsqrt() * self.weight
        normed = centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        for name in ("drop", "act"):  # of timm's BatchNormAct2d
            normed = getattr(self, name, nn.Identity())(normed)
        return normed.to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor) -> None:
        count, means, variances = self.num_batches_tracked, self.running_mean, self.running_var
        if count is None or means is None or variances is None:  # not tracked
            return
        count += 1
        share = 1 / int(count) if self.momentum is None else self.momentum
        means.lerp_(mean, share)
        variances.lerp_(variance, share)


def _sum_over_processes(values: Tensor) -> Tensor:
    total: Tensor = _AllReduce.apply(values)
    return total


class _AllReduce(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of the gradients in all of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _AllReduce.forward(ctx, gradients[0])
