"""The matching module: correlation of query and support pixels (section 3.3, figure 5)."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.nn import tensors
from fssbench_hdmnet.attention import FeedForward, LayerNorm
from fssbench_hdmnet.maps import join, split, to_map

Matching = Literal["cross-attention", "cosine", "cosine-softmax", "cosine-inverse-softmax"]

_HEADS = 2
# Correlations that are computed at a time without gradients: 16 M floats.
_AT_ONCE = 1 << 24


@attrs.frozen(eq=False)
class Keys:
    """Attention keys and values of S support pixels at one stage.

    Attributes:
        keys: keys, (B, heads, S, d), of length 1 unless matching is ``cross-attention``.
        values: values, (B, heads, S, d), zero outside of the foreground.
        foreground: foreground of the pixels, float (B, 1, S, 1) of 0 and 1.
    """

    keys: Tensor
    values: Tensor
    foreground: Tensor

    def mean(self) -> Tensor:
        """Return the mean key of the foreground, (B, heads, d, 1)."""
        weights = self.foreground.to(self.keys.dtype)
        total = (self.keys * weights).sum(2).unsqueeze(-1)
        return total / (weights.sum(2).unsqueeze(-1) + 1e-9)

    def foreground_only(self) -> Keys:
        """Return the foreground pixels of one image; if it has none, one background pixel."""
        shown = self.foreground[0, 0, :, 0] > 0
        shown[0] |= ~shown.any()
        return Keys(*(tensor[:, :, shown] for tensor in tensors(self)))


def joined_keys(keys: Sequence[Sequence[Keys]]) -> Keys:
    """Concatenate the pixels of K images of each of B episodes.

    Episodes with fewer pixels are padded with background.
    """
    episodes = [
        [torch.cat(shots, 2) for shots in zip(*map(tensors, images), strict=True)]
        for images in keys
    ]
    longest = max(each[0].shape[2] for each in episodes)
    padded = (
        [functional.pad(tensor, (0, 0, 0, longest - tensor.shape[2])) for tensor in each]
        for each in episodes
    )
    return Keys(*(torch.cat(each) for each in zip(*padded, strict=True)))


class MatchingModule(nn.Module):
    """Query tokens enriched with the values of the support pixels that correlate with them.

    Equation 4 is a cosine divided by t; equation 5, the inverse softmax, is taken over the *query*
    positions, for each support pixel separately; support background is masked afterwards. The
    ablations of table 5 replace equation 5, and the paper does not print their formulas:

    * ``cosine``: no softmax, but the mean over the foreground's pixels, so that the scale does not
      depend on the size of the object.
    * ``cosine-softmax``: softmax over the foreground's pixels.
    * ``cross-attention``: dot products divided by sqrt(d), softmax over the foreground's pixels.

    Where equation 6 has one linear map W_o of matches and prior, the authors' code has a residual,
    a feed-forward layer, and a 3 x 3 convolution with batch norm and ReLU.

    Args:
        channels: C, channels of the tokens.
        priors: number of prior maps that are concatenated.
        matching: function from correlations to weights.
        temperature: t of equation 4; ``cross-attention`` has none.
        dropout: dropout rate.
    """

    def __init__(
        self, channels: int, *, priors: int, matching: Matching, temperature: float, dropout: float
    ) -> None:
        super().__init__()
        self.matching = matching
        dot = matching == "cross-attention"
        self.scale = 1 / (math.sqrt(channels // _HEADS) if dot else temperature)
        self.norm1 = LayerNorm(channels)
        self.query, self.key, self.value, self.output = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.dropout = nn.Dropout(dropout)
        self.norm2 = LayerNorm(channels)
        self.feed_forward = FeedForward(channels, dropout=dropout)
        self.fuse = nn.Conv2d(channels + priors, channels, 3, padding=1, bias=False)
        self.fuse_norm = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")

    def keys(self, tokens: Tensor, foreground: Tensor) -> Keys:
        """Return the keys and values of a support set, which do not depend on the query.

        Args:
            tokens: tokens of the supports, (B, S, C); for K shots S = K·h·w.
            foreground: foreground of the pixels, float (B, S) of 0 and 1.
        """
        source = self.norm1(tokens)
        values = split(self.value(source), _HEADS)
        weights = foreground[:, None, :, None]
        return Keys(self._directed(self.key(source)), values * weights.to(values.dtype), weights)

    def forward(
        self, tokens: Tensor, size: Sequence[int], support: Keys, priors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Match queries with their supports.

        Args:
            tokens: tokens of the queries, (B, h·w, C).
            size: h and w.
            support: result of `keys`.
            priors: prior maps, (B, P, h, w).

        Returns:
            Matching results X of equation 6, (B, C, h, w), and the correlation maps C' of
            equation 7, (B, h, w): means over the support's foreground and the heads.
        """
        queries = self._directed(self.query(self.norm1(tokens))) * self.scale
        # The mean of products is the product with the mean, so C' needs no map of all pairs.
        correlation = (queries @ support.mean()).mean(1).view(-1, *size)
        matched = join(self._retrieve(queries, support))
        tokens = tokens + self.dropout(self.output(matched))
        tokens = tokens + self.feed_forward(self.norm2(tokens), size)
        fused = self.fuse(torch.cat([to_map(tokens, size), priors.to(tokens.dtype)], 1))
        return functional.relu(self.fuse_norm(fused)), correlation

    def _directed(self, tokens: Tensor) -> Tensor:
        """Split tokens into heads, normalised to length 1 for cosines."""
        heads = split(tokens, _HEADS)
        return heads if self.matching == "cross-attention" else functional.normalize(heads, dim=-1)

    def _retrieve(self, queries: Tensor, support: Keys) -> Tensor:
        """Return the support's values weighted by correlations, (B, heads, h·w, d)."""
        if self.matching == "cosine-inverse-softmax":
            return inverse_softmax(queries, support.keys, support.values)
        count = support.foreground.sum(2, keepdim=True)
        if self.matching == "cosine":
            summed = support.keys.transpose(2, 3) @ support.values  # (B, heads, d, d)
            return queries @ (summed / count.clamp(min=1))
        # Without foreground, all of the background is attended to; its values are zero.
        attended = (support.foreground > 0) | (count == 0)
        return functional.scaled_dot_product_attention(
            queries, support.keys, support.values, attn_mask=attended.transpose(2, 3), scale=1.0
        )


def inverse_softmax(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return equation 5 multiplied with V: the weights of each key sum to 1 over the queries.

    Keys are independent of each other, so without gradients they are processed in portions.

    Args:
        queries: scaled queries, (B, heads, Q, d).
        keys: keys, (B, heads, S, d).
        values: values, (B, heads, S, d).

    Returns:
        (B, heads, Q, d).
    """
    step = keys.shape[2]
    if not torch.is_grad_enabled():
        step = max(1, _AT_ONCE // queries[..., 0].numel())
    # The matrix is support by query, so that the softmax runs along memory: twice as fast on a CPU.
    portions = (
        (some @ queries.transpose(2, 3)).softmax(3).to(values.dtype).transpose(2, 3) @ theirs
        for some, theirs in zip(
            torch.split(keys, step, 2), torch.split(values, step, 2), strict=True
        )
    )
    return functools.reduce(operator.add, portions)
