"""The selective scan in torch operations: a parallel prefix scan, forwards and backwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Numbers per pass over time: as many as fit a CPU's caches; more on a GPU.
_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 26}


def torch_scan(u: Tensor, *others: Tensor | bool | None) -> Tensor:
    """Run the scan on any device; the arguments are those of `fssbench.nn.selective_scan`."""
    with torch.autocast(u.device.type, enabled=False):
        scanned: Tensor = _Scan.apply(u, *others)
    return scanned


class _Scan(torch.autograd.Function):
    """The scan, time first, for portions of samples, channels and states.

    States, channels and samples are independent, so no tensor of all states at all times is
    needed.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None,
        bias: Tensor | None, softplus: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(u, delta, a, b, c, d, bias)
        ctx.softplus = softplus
        (batch, channels, length), groups = u.shape, b.shape[1]
        out = u.new_empty(length, batch, groups, channels // groups)
        for where in _portions(u, groups):
            part = _Portion(where, u, delta, a, b, c, bias, softplus)
            total = torch.zeros_like(part.u) if d is None else part.u * part.of_channels(d)
            for some in part.some_states():
                h, c_t = part.states(some), part.c[:, some]
                # In sequence, so that the sum does not depend on the number of states in a pass.
                for state in range(h.shape[1]):
                    total.addcmul_(h[:, state], c_t[:, state])
            out[:, *where] = total
        return out.reshape(length, batch, channels).permute(1, 2, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        given = ctx.saved_tensors
        with torch.autocast(slope.device.type, enabled=False):
            found = _gradients(slope, given, ctx.softplus)
        pairs = zip(given, found, ctx.needs_input_grad, strict=False)
        wanted = [gradient.to(x.dtype) if needed else None for x, gradient, needed in pairs]
        return (*wanted, None)


Where = tuple[slice, slice, slice]  # samples, groups, channels of a group


class _Portion:
    """Some samples, groups and channels, time first, in the type of the computation.

    `b` and `c` are (L, n, samples, groups, 1), `a` is (n, 1, groups, channels), other
    tensors are (L, samples, groups, channels).
    """

    def __init__(
        self, where: Where, u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor,
        bias: Tensor | None, softplus: bool,
    ) -> None:  # fmt: skip
        self.kind, self.groups, self.where = _kind(u, delta), b.shape[1], where
        self.u, self.raw = self.first(u), self.first(delta)
        if bias is not None:
            self.raw = self.raw + self.of_channels(bias)
        self.delta = functional.softplus(self.raw) if softplus else self.raw
        self.a = a.to(self.kind).t().reshape(a.shape[1], 1, self.groups, -1)[:, :, *where[1:]]
        self.b, self.c = (
            x[where[:2]].to(self.kind).permute(3, 2, 0, 1).contiguous()[..., None] for x in (b, c)
        )
        self.driven = self.delta * self.u
        # Memory is reused for all states: allocating costs as much as writing.
        count = max(1, min(a.shape[1], _most(self.u) // max(1, self.u.numel())))
        shape = (self.u.shape[0], count, *self.u.shape[1:])
        self._decays, self._states = (self.u.new_empty(shape) for _ in range(2))

    def first(self, changing: Tensor) -> Tensor:
        """Rearrange (b, d, L) to (L, samples, groups, channels)."""
        batch, _, length = changing.shape
        by_group = changing.reshape(batch, self.groups, -1, length)[self.where]
        turned = by_group.permute(3, 0, 1, 2)
        if turned.stride(-1) == 1:  # time is first already, except for the cut
            return turned.to(self.kind).contiguous()
        # torch transposes a matrix four times faster than other tensors.
        matrix = by_group.reshape(-1, length).t().contiguous()
        return matrix.to(self.kind).view(turned.shape)

    def of_channels(self, steady: Tensor) -> Tensor:
        """Rearrange (d,) to (groups, channels)."""
        return steady.to(self.kind).view(self.groups, -1)[self.where[1:]]

    def some_states(self) -> Iterator[slice]:
        """Yield ranges of states that are computed together."""
        states, count = self.b.shape[1], self._states.shape[1]
        for start in range(0, states, count):
            yield slice(start, min(states, start + count))

    def decays(self, some: slice) -> Tensor:
        """Return decays (L, n, samples, groups, channels), overwritten by the next call."""
        out = self._decays[:, : some.stop - some.start]
        return torch.mul(self.delta[:, None], self.a[some], out=out).exp_()

    def states(self, some: slice) -> Tensor:
        """Return states of the same shape, overwritten by the next call."""
        out = self._states[:, : some.stop - some.start]
        states = torch.mul(self.driven[:, None], self.b[:, some], out=out)
        _accumulate(self.decays(some), states)
        return states


def _gradients(slope: Tensor, given: tuple[Tensor, ...], softplus: bool) -> tuple[Tensor, ...]:
    """Return the gradients of u, delta, A, B, C, D and the bias."""
    u, delta, a, b, c, d, bias = given
    batch, channels, length = u.shape
    groups, states, kind = b.shape[1], a.shape[1], _kind(u, delta)
    steady = (groups, channels // groups)
    du, ddelta = (u.new_empty(length, batch, *steady, dtype=kind) for _ in range(2))
    db, dc = (b.new_zeros(length, states, batch, groups, dtype=kind) for _ in range(2))
    da = a.new_zeros(states, *steady, dtype=kind)
    dd, dbias = (a.new_zeros(*steady, dtype=kind) for _ in range(2))
    for where in _portions(u, groups):
        rows, some_groups, _ = where
        part = _Portion(where, u, delta, a, b, c, bias, softplus)
        dy = part.first(slope)
        # Gradients of delta_t u_t, summed over states, and of delta_t through the decays.
        of_driven, of_delta = torch.zeros_like(dy), torch.zeros_like(dy)
        for some in part.some_states():
            h = part.states(some)
            dc[:, some, rows, some_groups] += (dy[:, None] * h).sum(-1)
            decays = part.decays(some)
            following = torch.empty_like(decays)
            following[:-1], following[-1] = decays[1:], 0
            dh = dy[:, None] * part.c[:, some]
            _accumulate_backwards(following, dh)
            of_driven += (dh * part.b[:, some]).sum(1)
            db[:, some, rows, some_groups] += (dh * part.driven[:, None]).sum(-1)
            # d h_t / d (delta_t A) = exp(delta_t A) h_(t-1); the state before the first step is 0.
            exponent = dh.mul_(decays)
            exponent[1:].mul_(h[:-1])
            exponent[0] = 0
            of_delta += (exponent * part.a[some]).sum(1)
            da[some, *where[1:]] += exponent.mul_(part.delta[:, None]).sum((0, 2))
        of_delta.addcmul_(of_driven, part.u)
        of_u = of_driven.mul_(part.delta)
        if d is not None:
            of_u.addcmul_(dy, part.of_channels(d))
            dd[where[1:]] += (dy * part.u).sum((0, 1))
        if softplus:
            of_delta.mul_(part.raw.sigmoid())
        du[:, *where], ddelta[:, *where] = of_u, of_delta
        dbias[where[1:]] += of_delta.sum((0, 1))
    of_steps = (x.flatten(2).permute(1, 2, 0) for x in (du, ddelta))
    of_groups = (x.permute(2, 3, 1, 0) for x in (db, dc))
    return (*of_steps, da.flatten(1).t(), *of_groups, dd.flatten(), dbias.flatten())


def _most(u: Tensor) -> int:
    """Return the maximum of numbers per pass over time."""
    return _AT_ONCE.get(u.device.type, _AT_ONCE["cpu"])


def _kind(u: Tensor, delta: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(u.dtype, delta.dtype), torch.float32)


def _portions(u: Tensor, groups: int) -> Iterator[Where]:
    """Yield portions of samples, groups and channels that are small enough for one pass."""
    batch, channels, length = u.shape
    most = max(1, _most(u) // length)
    wide = channels // groups
    rows = max(1, most // channels)
    count = groups if channels <= most else max(1, most // wide)
    width = wide if wide <= most else most
    for start in range(0, batch, rows):
        for group in range(0, groups, count):
            for channel in range(0, wide, width):
                yield (
                    slice(start, min(batch, start + rows)),
                    slice(group, min(groups, group + count)),
                    slice(channel, min(wide, channel + width)),
                )


def _accumulate(decays: Tensor, x: Tensor) -> None:
    """Add decays_t x_(t-1) to each x_t in order of t, in place, along the first dimension.

    A parallel prefix scan (Blelloch, 1990) over pairs (decay, x): pairs of neighbours are combined,
    the sequence of these pairs, half as long, is scanned, and the others follow from it: 2 L
    operations of log2(L) depth. `decays` are overwritten.
    """
    length = len(x)
    if length < 2:
        return
    odd, before = slice(1, None, 2), slice(0, length - 1, 2)
    x[odd].addcmul_(decays[odd], x[before])
    decays[odd].mul_(decays[before])
    _accumulate(decays[odd], x[odd])
    if length > 2:
        x[2::2].addcmul_(decays[2::2], x[1 : length - 1 : 2])


def _accumulate_backwards(decays: Tensor, x: Tensor) -> None:
    """Add decays_t x_(t+1) to each x_t, from the last t to the first, in place."""
    length = len(x)
    if length < 2:
        return
    start = length % 2
    odd, after = slice(start, length - 1, 2), slice(start + 1, None, 2)  # odd from the end
    x[odd].addcmul_(decays[odd], x[after])
    decays[odd].mul_(decays[after])
    _accumulate_backwards(decays[odd], x[odd])
    if length > 2:
        even = slice(1 - start, length - 2, 2)
        x[even].addcmul_(decays[even], x[2 - start : length - 1 : 2])
