"""Attention weighted mask aggregation (section 3.2, equation 1, figure 3)."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Attention weights that exist at a time. On a CPU, one head's few hundred queries at a time stay in
# its cache and take a third of the time of all at once; a GPU wants large pieces.
_WEIGHTS_CPU = 1 << 19
_WEIGHTS_GPU = 1 << 26
# So many may be kept for the backward pass (64 MiB in float32); more are computed again in it.
_KEPT = 1 << 24


class MaskAggregation(nn.Module):
    """Query masks from support masks, weighted by how much a query pixel resembles theirs.

    The value of the attention is the support mask itself, so there is neither a value nor an
    output projection; the heads' answers are averaged. All layers of one scale share one of these.

    Args:
        channels: C of the features.
        heads: attention heads; they divide C among them.
        pixels: h · w of the largest feature map.
        dropout: of the features with their positions added, and of attention weights, in training.
        gain: what initial weights of the projections are multiplied with.
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
        """What support pixels are found by, made once for a support set.

        Args:
            features: (B, K, C, h, w). Each shot's positions start anew.

        Returns:
            (B, heads, K·h·w, C / heads).
        """
        tokens = self.key(self._tokens(features))  # (B, K, h·w, C)
        return self._split(tokens.flatten(1, 2))

    def forward(self, features: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Aggregate support masks for each query pixel.

        Args:
            features: of the query, (B, C, h, w).
            keys: of S support pixels, (B, heads, S, C / heads).
            values: mask values of these pixels in [0, 1], (B, S).

        Returns:
            (B, h, w), in [0, 1] outside of training.
        """
        queries = self._split(self.query(self._tokens(features)))  # (B, heads, h·w, d)
        queries = queries / math.sqrt(queries.shape[-1])
        each = attend(
            queries.flatten(0, 1),
            keys.flatten(0, 1),
            values.to(keys.dtype).repeat_interleave(self.heads, 0),
            dropout=self.dropout if self.training else 0.0,
        )  # (B·heads, h·w)
        return each.view(-1, self.heads, *features.shape[-2:]).mean(1)

    def _tokens(self, features: Tensor) -> Tensor:
        """(…, C, h, w) to (…, h·w, C), with positions."""
        tokens = features.flatten(-2).transpose(-2, -1)
        tokens = tokens + self.positions[: tokens.shape[-2]].to(tokens.dtype)
        return functional.dropout(tokens, self.dropout, self.training)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, N, C) to (B, heads, N, C / heads)."""
        batch, length, channels = tokens.shape
        heads = tokens.view(batch, length, self.heads, channels // self.heads)
        return heads.transpose(1, 2).contiguous()


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, dropout: float = 0.0) -> Tensor:
    """softmax(Q Kᵀ) V of equation 1, piece by piece: never are all weights in memory.

    Args:
        queries: scaled, (N, Q, d).
        keys: (N, S, d).
        values: (N, S).
        dropout: of attention weights.

    Returns:
        (N, Q).
    """
    count, length = queries.shape[:2]
    budget = _WEIGHTS_CPU if queries.device.type == "cpu" else _WEIGHTS_GPU
    rows = max(1, min(length, budget // keys.shape[1]))
    group = max(1, min(count, budget // (rows * keys.shape[1])))
    # Gradients would keep the weights of all pieces of all layers: where these are many they are
    # computed again instead, which takes twice the time.
    again = torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad)
    again = again and count * length * keys.shape[1] > _KEPT
    results = []
    for first in range(0, count, group):
        some = slice(first, first + group)
        parts = []
        for start in range(0, length, rows):
            piece = (queries[some, start : start + rows], keys[some], values[some], dropout)
            parts.append(
                checkpoint(_attend, *piece, use_reentrant=False, preserve_rng_state=dropout > 0)
                if again
                else _attend(*piece)
            )
        results.append(torch.cat(parts, 1))
    return torch.cat(results)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    weights = (queries @ keys.transpose(1, 2)).softmax(-1)  # (n, rows, S)
    weights = functional.dropout(weights, dropout, training=dropout > 0)
    return (weights @ values.unsqueeze(-1).to(weights.dtype)).squeeze(-1)


def sinusoids(length: int, channels: int) -> Tensor:
    """Sine and cosine of 1-D positions (Vaswani et al., section 3.5): float (length, channels)."""
    position = torch.arange(length, dtype=torch.float32).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = position * frequency
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :channels]
