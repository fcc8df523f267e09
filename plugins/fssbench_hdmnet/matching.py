"""The matching module: correlation of query and support pixels (section 3.3, figure 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench_hdmnet.attention import EPSILON, FeedForward
from fssbench_hdmnet.maps import join, split, to_map

Matching = Literal["cross-attention", "cosine", "cosine-softmax", "cosine-inverse-softmax"]

_HEADS = 2
# Correlations that exist at a time where no gradient is wanted: 16 M floats.
_AT_ONCE = 1 << 24


@attrs.frozen(eq=False)
class Keys:
    """What S support pixels of one stage are found by, and what they say.

    Attributes:
        keys: (B, heads, S, d), of length 1 unless matching is ``cross-attention``.
        values: (B, heads, S, d), zero outside of the foreground.
        foreground: float (B, S) of 0 and 1.
    """

    keys: Tensor
    values: Tensor
    foreground: Tensor

    def mean(self) -> Tensor:
        """Sum of the foreground's keys, divided by their number: (B, heads, d, 1)."""
        weights = self.foreground[:, None, :, None].to(self.keys.dtype)
        total = (self.keys * weights).sum(2).unsqueeze(-1)
        return total / (weights.sum(2).unsqueeze(-1) + 1e-9)

    def foreground_only(self) -> Keys:
        """Those of one image that say something; one pixel of background if there is nothing."""
        shown = self.foreground[0] > 0
        shown[0] |= ~shown.any()
        return Keys(self.keys[:, :, shown], self.values[:, :, shown], self.foreground[:, shown])

    def padded(self, length: int) -> Keys:
        """With pixels of background, up to a length."""
        more = length - self.foreground.shape[1]
        if not more:
            return self
        pad = functional.pad
        return Keys(
            pad(self.keys, (0, 0, 0, more)),
            pad(self.values, (0, 0, 0, more)),
            pad(self.foreground, (0, more)),
        )


def joined_keys(keys: Sequence[Sequence[Keys]]) -> Keys:
    """Of K images of each of B episodes: pixels of an episode side by side, background behind."""
    episodes = [
        Keys(
            torch.cat([one.keys for one in shots], 2),
            torch.cat([one.values for one in shots], 2),
            torch.cat([one.foreground for one in shots], 1),
        )
        for shots in keys
    ]
    longest = max(each.foreground.shape[1] for each in episodes)
    every = [each.padded(longest) for each in episodes]
    return Keys(
        torch.cat([each.keys for each in every]),
        torch.cat([each.values for each in every]),
        torch.cat([each.foreground for each in every]),
    )


class MatchingModule(nn.Module):
    """Enriches query tokens with what they resemble in the support.

    Equation 4 is a cosine divided by t; equation 5, the inverse softmax, is taken over the *query*
    positions, for each support pixel alone; support background is masked afterwards. The
    ablations of table 5 replace equation 5, and the paper does not print their formulas:

    * ``cosine``: no softmax. The mean over the foreground's pixels, so that the size of an object
      does not set the scale.
    * ``cosine-softmax``: softmax over the foreground's pixels.
    * ``cross-attention``: dot products divided by sqrt(d), softmax over the foreground's pixels.

    Where equation 6 has one linear map W_o of matches and prior, the authors' code has a residual,
    a feed-forward layer, and a 3 x 3 convolution with batch norm and ReLU.

    Args:
        channels: C of the tokens.
        priors: prior maps that are concatenated.
        matching: how weights are made of correlations.
        temperature: t of equation 4; ``cross-attention`` has none.
        dropout: rate.
    """

    def __init__(
        self,
        channels: int,
        *,
        priors: int,
        matching: Matching,
        temperature: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.matching = matching
        self.temperature = temperature
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.feed_forward = FeedForward(channels, dropout=dropout)
        self.fuse = nn.Conv2d(channels + priors, channels, 3, padding=1, bias=False)
        self.fuse_norm = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")

    def keys(self, tokens: Tensor, foreground: Tensor) -> Keys:
        """Project support tokens, once for a support set.

        Args:
            tokens: (B, S, C); for K shots S = K·h·w.
            foreground: float (B, S) of 0 and 1.
        """
        source = self.norm1(tokens)
        values = split(self.value(source), _HEADS)
        return Keys(
            self._directed(self.key(source)),
            values * foreground[:, None, :, None].to(values.dtype),
            foreground,
        )

    def forward(
        self, tokens: Tensor, size: Sequence[int], support: Keys, priors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Match.

        Args:
            tokens: of the queries, (B, h·w, C).
            size: h, w.
            support: of `keys`.
            priors: (B, P, h, w).

        Returns:
            Matching results X of equation 6, (B, C, h, w), and the correlation maps C' of
            equation 7, (B, h, w): means over the support's foreground and the heads.
        """
        queries = self._directed(self.query(self.norm1(tokens))) * self._scale(support.keys)
        # The mean of products is the product with the mean: no map of all pairs is needed here.
        correlation = (queries @ support.mean()).mean(1).view(-1, *size)
        matched = join(self._retrieve(queries, support))
        tokens = tokens + self.dropout(self.output(matched))
        tokens = tokens + self.feed_forward(self.norm2(tokens), size)
        fused = self.fuse(torch.cat([to_map(tokens, size), priors.to(tokens.dtype)], 1))
        return functional.relu(self.fuse_norm(fused)), correlation

    def _directed(self, tokens: Tensor) -> Tensor:
        """Heads of tokens, of length 1 where only their direction counts."""
        heads = split(tokens, _HEADS)
        return heads if self.matching == "cross-attention" else functional.normalize(heads, dim=-1)

    def _scale(self, keys: Tensor) -> float:
        if self.matching == "cross-attention":
            return 1 / math.sqrt(keys.shape[-1])
        return 1 / self.temperature

    def _retrieve(self, queries: Tensor, support: Keys) -> Tensor:
        """(B, heads, h·w, d): values of the support, weighted by correlations with it."""
        if self.matching == "cosine-inverse-softmax":
            return inverse_softmax(queries, support.keys, support.values)
        if self.matching == "cosine":
            count = support.foreground.sum(1).clamp(min=1).view(-1, 1, 1, 1)
            summed = support.keys.transpose(2, 3) @ support.values  # (B, heads, d, d)
            return queries @ (summed / count)
        # Values of the background are zero: with nothing to attend to, all of it gives zero.
        nothing = support.foreground.sum(1, keepdim=True) == 0
        attended = (support.foreground > 0) | nothing
        return functional.scaled_dot_product_attention(
            queries, support.keys, support.values, attn_mask=attended[:, None, None, :], scale=1.0
        )


def inverse_softmax(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Equation 5 and its product with V: each key's weights sum to 1 over the queries.

    Keys do not see each other, so without gradients they come a few at a time.

    Args:
        queries: scaled, (B, heads, Q, d).
        keys: (B, heads, S, d).
        values: (B, heads, S, d).

    Returns:
        (B, heads, Q, d).
    """
    batch, heads, length, _ = queries.shape
    step = keys.shape[2]
    if not torch.is_grad_enabled():
        step = max(1, min(step, _AT_ONCE // (batch * heads * length)))
    total: Tensor | None = None
    for start in range(0, keys.shape[2], step):
        some = slice(start, start + step)
        # Support by query, so that a softmax runs along memory: twice as fast on a CPU.
        weights = (keys[:, :, some] @ queries.transpose(2, 3)).softmax(3)
        part = weights.to(values.dtype).transpose(2, 3) @ values[:, :, some]
        total = part if total is None else total + part
    assert total is not None
    return total
