"""Visual state space block: a selective scan of 2D patches in four directions (VMamba)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fssbench.nn import selective_scan

DIRECTIONS = 4
# Tensor elements of the patches that are processed together, and the number of elements above
# which the backward pass recomputes them.
_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 25}
_STORED = {"cpu": 1 << 23, "cuda": 1 << 25}


class VssBlock(nn.Module):
    """Scan and feed-forward network, each on normed input and added to it (VMamba, figure 3).

    The final form of Liu et al., "VMamba: Visual State Space Model", NeurIPS 2024: one state, no
    gate, as many inner channels as outer ones, a feed-forward network four times as wide. UINO-FSS
    gives none of these numbers; with them its module has 0.17 M parameters, and 0.18 M in the
    paper.

    Args:
        channels: channels of a patch.
        states: number of states of each channel.
        wider: expansion factor of the feed-forward network.
    """

    def __init__(self, channels: int, *, states: int = 1, wider: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.scan = CrossScan(channels, states=states)
        self.norm2 = nn.LayerNorm(channels)
        self.feed = nn.Sequential(
            nn.Linear(channels, wider * channels),
            nn.GELU(),
            nn.Linear(wider * channels, channels),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Process patches independently of each other.

        They are processed in portions, which are recomputed in the backward pass if there are many
        patches, so memory hardly grows with their number.

        Args:
            patches: (P, h, w, channels).

        Returns:
            The same shape.
        """
        device = patches.device.type
        count = max(1, _AT_ONCE.get(device, _AT_ONCE["cpu"]) // math.prod(patches.shape[1:]))
        if not torch.is_grad_enabled():
            out = torch.empty_like(patches)
            for start in range(0, len(patches), count):
                out[start : start + count] = self._some(patches[start : start + count])
            return out
        parts = torch.split(patches, count)
        if patches.numel() <= _STORED.get(device, _STORED["cpu"]):
            return torch.cat([self._some(part) for part in parts])
        return torch.cat([checkpoint(self._some, part, use_reentrant=False) for part in parts])

    def _some(self, patches: Tensor) -> Tensor:
        patches = patches + self.scan(self.norm1(patches))
        return patches + self.feed(self.norm2(patches))


class CrossScan(nn.Module):
    """Sum of selective scans of a patch in four directions (VMamba's SS2D, section 4.2).

    Row by row, column by column, and both backwards; each direction has its own parameters.

    Args:
        channels: channels of a patch.
        states: number of states of each channel.
    """

    def __init__(self, channels: int, *, states: int = 1) -> None:
        super().__init__()
        self.states = states
        self.rank = math.ceil(channels / 16)  # rank of the projection to step sizes
        self.project_in = nn.Linear(channels, channels, bias=False)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.select = nn.Parameter(torch.empty(DIRECTIONS, channels, self.rank + 2 * states))
        self.steps = nn.Parameter(torch.empty(DIRECTIONS, self.rank, channels))
        self.step_bias = nn.Parameter(torch.empty(DIRECTIONS, channels))
        # A = -exp(decay_log) is below 0 for all parameters; its initial values are -1, -2, …
        # (S4D-real).
        start = torch.arange(1.0, states + 1).log()
        self.decay_log = nn.Parameter(start.repeat(DIRECTIONS * channels, 1))
        self.skip = nn.Parameter(torch.ones(DIRECTIONS * channels))
        self.norm = nn.LayerNorm(channels)
        self.project_out = nn.Linear(channels, channels, bias=False)
        self._reset()

    def _reset(self) -> None:
        """Initialise as Mamba does: steps from 0.001 to 0.1, evenly on a logarithmic scale."""
        nn.init.uniform_(self.select, -(self.select.shape[1] ** -0.5), self.select.shape[1] ** -0.5)
        nn.init.uniform_(self.steps, -(self.rank**-0.5), self.rank**-0.5)
        low, high = math.log(1e-3), math.log(1e-1)
        with torch.no_grad():
            step = torch.exp(low + (high - low) * torch.rand_like(self.step_bias))
            self.step_bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus's inverse

    def forward(self, patches: Tensor) -> Tensor:
        """Scan patches (P, h, w, channels); the shape stays the same."""
        _, height, width, channels = patches.shape
        x = self.project_in(patches).permute(0, 3, 1, 2)
        x = functional.silu(self.depthwise(x)).permute(0, 2, 3, 1)
        # Time first, as the scan without a kernel needs it: (L, P, 4, channels).
        rows = x.flatten(1, 2).transpose(0, 1)
        columns = x.transpose(1, 2).flatten(1, 2).transpose(0, 1)
        sequences = torch.stack([rows, columns, rows.flip(0), columns.flip(0)], 2)
        u = sequences.flatten(2)
        chosen = torch.einsum("lpdc,dck->lpdk", sequences, self.select)
        step, b, c = torch.split(chosen, [self.rank, self.states, self.states], -1)
        delta = torch.einsum("lpdr,drc->lpdc", step, self.steps).flatten(2)
        y = selective_scan(
            u.permute(1, 2, 0),
            delta.permute(1, 2, 0),
            -self.decay_log.exp(),
            b.permute(1, 2, 3, 0),
            c.permute(1, 2, 3, 0),
            D=self.skip,
            delta_bias=self.step_bias.flatten(),
            delta_softplus=True,
        )
        directions = y.permute(2, 0, 1).reshape(sequences.shape)
        by_row = directions[:, :, 0] + directions[:, :, 2].flip(0)
        by_column = directions[:, :, 1] + directions[:, :, 3].flip(0)
        turned = by_column.view(width, height, -1, channels).transpose(0, 1).flatten(0, 1)
        merged = (by_row + turned).transpose(0, 1).reshape(patches.shape)
        return self.project_out(self.norm(merged))
