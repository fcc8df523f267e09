"""Visual state space block: a selective scan of 2D patches in four directions (VMamba)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fssbench.nn import count_operations, selective_scan

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
        self.wider = wider
        self.norm1 = nn.LayerNorm(channels)
        self.scan = CrossScan(channels, states=states)
        self.norm2 = nn.LayerNorm(channels)
        self.feed = nn.Sequential(
            nn.Linear(channels, wider * channels),
            nn.GELU(),
            nn.Linear(wider * channels, channels),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Process patches (P, h, w, channels) independently of each other; the shape stays."""
        return self.transformed(self.scanned(patches))

    def scanned(self, patches: Tensor) -> Tensor:
        """Add the scan of the normed patches (P, h, w, channels) to them; the shape stays."""
        return _in_portions(self._scanned, patches, 1)

    def transformed(self, features: Tensor) -> Tensor:
        """Add the feed-forward network of the normed features (…, channels); the shape stays."""
        rows = features.view(-1, features.shape[-1])
        return _in_portions(self._transformed, rows, self.wider).view(features.shape)

    def _scanned(self, patches: Tensor) -> Tensor:
        scanned: Tensor = patches + self.scan(self.norm1(patches))
        return scanned

    def _transformed(self, rows: Tensor) -> Tensor:
        transformed: Tensor = rows + self.feed(self.norm2(rows))
        return transformed


def _in_portions(function: Callable[[Tensor], Tensor], x: Tensor, wider: int) -> Tensor:
    """Apply a function to portions of the first dimension, of a size that suits the device.

    With gradients, portions of a large `x` are recomputed in the backward pass, so memory hardly
    grows with their number.

    Args:
        function: function of some of the first dimension, whose result has the same shape.
        x: tensor of any shape.
        wider: size of the largest intermediate tensor, in multiples of the portion's.
    """
    device = x.device.type
    count = max(1, _AT_ONCE.get(device, _AT_ONCE["cpu"]) // (wider * math.prod(x.shape[1:])))
    if not torch.is_grad_enabled():
        out = torch.empty_like(x)
        for start in range(0, len(x), count):
            out[start : start + count] = function(x[start : start + count])
        return out
    parts = torch.split(x, count)
    if x.numel() <= _STORED.get(device, _STORED["cpu"]):
        return torch.cat([function(part) for part in parts])
    return torch.cat([checkpoint(function, part, use_reentrant=False) for part in parts])


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
        x = self.project_in(patches).permute(0, 3, 1, 2)
        x = functional.silu(self.depthwise(x)).permute(0, 2, 3, 1)
        in_place = x.device.type == "cpu" and not torch.is_grad_enabled()
        merged = self._in_place(x) if in_place else self._by_sequences(x)
        return self.project_out(self.norm(merged))

    def _by_sequences(self, x: Tensor) -> Tensor:
        """Return the sum of the four scans (P, h, w, channels), each of a copy in its order."""
        _, height, width, channels = x.shape
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
        return (by_row + turned).transpose(0, 1).reshape(x.shape)

    def _in_place(self, x: Tensor) -> Tensor:
        """Return the same sum, without gradients and without copies in the order of a scan."""
        channels, kind = x.shape[-1], torch.promote_types(x.dtype, torch.float32)
        count_operations(DIRECTIONS * x.numel() * (9 * self.states + 1))  # as in `selective_scan`
        with torch.autocast(x.device.type, enabled=False):
            u = x.permute(1, 2, 0, 3).to(kind).contiguous()  # (h, w, P, channels)
            chosen = torch.mm(u.view(-1, channels), self.select.transpose(0, 1).flatten(1).to(kind))
            chosen = chosen.unflatten(1, (DIRECTIONS, -1))
            rates = -self.decay_log.exp().view(DIRECTIONS, channels, -1).to(kind)
            total = u * self.skip.view(DIRECTIONS, channels).sum(0)
            steps, decays, states = (torch.empty_like(u) for _ in range(3))
            for direction in range(DIRECTIONS):
                columns, backwards = direction % 2 == 1, direction >= 2
                step, b, c = torch.split(
                    chosen[:, direction], [self.rank, self.states, self.states], -1
                )
                torch.mm(step, self.steps[direction].to(kind), out=steps.view(-1, channels))
                steps.add_(self.step_bias[direction])
                steps = functional.softplus(steps)
                for state in range(self.states):
                    torch.mul(steps, u, out=states).mul_(b[:, state].view(*u.shape[:3], 1))
                    torch.mul(steps, rates[direction, :, state], out=decays).exp_()
                    planes = (
                        (decays.transpose(0, 1), states.transpose(0, 1))
                        if columns else (decays, states)
                    )  # fmt: skip
                    _accumulate(*planes, backwards=backwards)
                    total.addcmul_(states, c[:, state].view(*u.shape[:3], 1))
        return total.permute(2, 0, 1, 3)


def _accumulate(decays: Tensor, x: Tensor, *, backwards: bool) -> None:
    """Add decays_t x_(t-1) to each x_t, in place, where t runs over the first two dimensions.

    Each row is scanned from zero, and then gets the last state of the row before it, which has
    decayed until there: three passes in large operations. `decays` are overwritten.

    Args:
        decays: (rows, columns, …).
        x: the same shape.
        backwards: t runs from the last position to the first.
    """
    forth = -1 if backwards else 1
    by_column = list(zip(decays.unbind(1), x.unbind(1), strict=True))[::forth]
    for (decay_before, before), (decay, state) in itertools.pairwise(by_column):
        state.addcmul_(decay, before)
        decay.mul_(decay_before)
    carried = by_column[-1][1].unbind(0)[::forth]
    for row, (decay, states) in enumerate(
        list(zip(decays.unbind(0), x.unbind(0), strict=True))[::forth][1:]
    ):
        states.addcmul_(decay, carried[row])
