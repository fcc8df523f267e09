"""Attention weighted mask aggregation (section 3.2, equation 1, figure 3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Attention weights that are computed at a time. On a CPU, a few hundred queries of one head fit the
# cache and take a third of the time of all at once; a GPU is faster with large pieces.
_WEIGHTS_CPU = 1 << 19
_WEIGHTS_GPU = 1 << 26
# Limit of weights stored for the backward pass (64 MiB in float32); more are recomputed there.
_STORED = 1 << 24


class MaskAggregation(nn.Module):
    """Query masks as averages of support masks, weighted by the similarity of pixels.

    The value of the attention is the support mask itself, so there is neither a value nor an
    output projection; the heads are averaged. All layers of one scale share one module.

    Args:
        channels: C, channels of the features.
        heads: number of attention heads, a divisor of C.
        pixels: h · w of the largest feature map.
        dropout: dropout rate of attention weights and of features with positions, in training.
        gain: factor of the initial weights of the projections.
    """

    positions: Tensor

    def __init__(
        self, channels: int, *, heads: int, pixels: int, dropout: float, gain: float = 1.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(channels, channels)
        with torch.no_grad():
            self.query.weight *= gain
        self.key = copy.deepcopy(self.query)  # training starts with one metric for both
        self.register_buffer("positions", sinusoids(pixels, channels), persistent=False)

    def keys(self, features: Tensor) -> Tensor:
        """Return the attention keys of support pixels, computed once for a support set.

        Args:
            features: support features, (B, K, C, h, w). Positions are numbered within each shot.

        Returns:
            (B, heads, K·h·w, C / heads).
        """
        tokens = self.key(self._tokens(features))  # (B, K, h·w, C)
        return self._split(tokens.flatten(1, 2))

    def queries(self, features: Tensor) -> Tensor:
        """Return the attention queries of query pixels, computed once for a query.

        Args:
            features: query features, (B, C, h, w).

        Returns:
            (B, heads, h·w, C / heads), scaled.
        """
        queries = self._split(self.query(self._tokens(features)))
        return queries / math.sqrt(queries.shape[-1])

    def aggregate(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Aggregate support masks for projected queries.

        Args:
            queries: result of `queries` for Q query pixels, (B, heads, Q, C / heads).
            keys: result of `keys` for S support pixels, (B, heads, S, C / heads).
            values: mask values of the support pixels in [0, 1], (B, S).

        Returns:
            (B, Q), in [0, 1] outside of training.
        """
        each = attend(
            queries.flatten(0, 1),
            keys.flatten(0, 1),
            values.to(keys.dtype).repeat_interleave(self.heads, 0),
            dropout=self.dropout if self.training else 0.0,
        )  # (B·heads, Q)
        return each.view(-1, self.heads, queries.shape[2]).mean(1)

    def _tokens(self, features: Tensor) -> Tensor:
        """Reshape (…, C, h, w) to (…, h·w, C) and add positions."""
        tokens = features.flatten(-2).transpose(-2, -1)
        tokens = tokens + self.positions[: tokens.shape[-2]].to(tokens.dtype)
        return functional.dropout(tokens, self.dropout, self.training)

    def _split(self, tokens: Tensor) -> Tensor:
        """Split (B, N, C) into heads (B, heads, N, C / heads)."""
        batch, length, channels = tokens.shape
        heads = tokens.view(batch, length, self.heads, channels // self.heads)
        return heads.transpose(1, 2).contiguous()


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, dropout: float = 0.0) -> Tensor:
    """Return softmax(Q Kᵀ) V of equation 1, computed in pieces to bound memory.

    Args:
        queries: scaled queries, (N, Q, d).
        keys: keys, (N, S, d).
        values: values, (N, S).
        dropout: dropout rate of attention weights.

    Returns:
        (N, Q).
    """
    count, length = queries.shape[:2]
    grad = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    if queries.device.type == "cpu" and queries.dtype == torch.float32 and not (grad or dropout):
        return _attend_in_place(queries, keys, values)
    budget = _WEIGHTS_CPU if queries.device.type == "cpu" else _WEIGHTS_GPU
    rows = max(1, min(length, budget // keys.shape[1]))
    group = max(1, min(count, budget // (rows * keys.shape[1])))
    # For gradients the weights of all pieces of all layers would be stored. If there are many, they
    # are recomputed in the backward pass, which takes twice the time.
    again = grad and count * length * keys.shape[1] > _STORED
    run: Callable[..., Tensor] = _attend
    if again:
        run = partial(checkpoint, _attend, use_reentrant=False, preserve_rng_state=dropout > 0)
    return torch.cat(
        [
            torch.cat([run(piece, *others, dropout) for piece in torch.split(some, rows, 1)], 1)
            for some, *others in zip(
                *(torch.split(each, group) for each in (queries, keys, values)), strict=True
            )
        ]
    )


def _attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    weights = (queries @ keys.transpose(1, 2)).softmax(-1)  # (n, rows, S)
    if dropout:
        weights = _drop(weights, dropout)
    return (weights @ values.unsqueeze(-1).to(weights.dtype)).squeeze(-1)


def _drop(weights: Tensor, rate: float) -> Tensor:
    """Apply dropout; on a CPU with a rate that is rounded to 16 bits.

    There torch draws 64 random bits for each weight, which takes half of a training step.
    """
    if weights.device.type != "cpu":
        return functional.dropout(weights, rate)
    dropped = min(round(rate * (1 << 16)), (1 << 16) - 1)
    drawn = torch.empty(-(-weights.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    bits = drawn.view(torch.int16)[: weights.numel()].view_as(weights)
    kept = torch.ge(bits, dropped - (1 << 15), out=torch.empty_like(weights))
    return weights * kept.mul_((1 << 16) / ((1 << 16) - dropped))


def _attend_in_place(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the same as `attend`, reusing memory for all pieces: twice as fast on a CPU."""
    count, length = queries.shape[:2]
    rows = max(1, min(length, _WEIGHTS_CPU // 2 // keys.shape[1]))
    weights = queries.new_empty(rows, keys.shape[1])
    result = queries.new_empty(count, length)
    # Autocast rejects operations with `out`, which it would not cast anyway.
    with torch.autocast("cpu", enabled=False):
        for head in range(count):
            for start in range(0, length, rows):
                piece = weights[: min(rows, length - start)]
                some = slice(start, start + len(piece))
                torch.mm(queries[head, some], keys[head].t(), out=piece)
                torch.softmax(piece, -1, out=piece)
                torch.mv(piece, values[head], out=result[head, some])
    return result


def sinusoids(length: int, channels: int) -> Tensor:
    """Return sinusoidal 1-D positions (Vaswani et al., section 3.5): float (length, channels)."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = position * frequency
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :channels]
