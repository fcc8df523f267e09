"""Blocks of the feature pyramid: self-attention on fewer keys, and a convolutional MLP.

They are those of SegFormer (Xie et al., NeurIPS 2021, section 3.1), as the authors' code takes them
from mmsegmentation. Dropout paths of rate 0 are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from fssbench_hdmnet.maps import join, pointwise, split, to_map, to_tokens

EPSILON = 1e-6
"""Of every layer norm."""


class SelfAttention(nn.Module):
    """Multi-head attention of a map to itself (equation 2 with F_q = F_s).

    Args:
        channels: C of the tokens.
        heads: they divide C among them.
        reduction: keys are a strided convolution of the map, so many times fewer along each side.
        dropout: of what comes out.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)
        self.reduce: nn.Conv2d | None = None
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels, eps=EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Attend.

        Args:
            tokens: (N, h·w, C), normalised.
            size: h, w.

        Returns:
            (N, h·w, C), without the residual.
        """
        source = tokens
        if self.reduce is not None:
            source = self.norm(to_tokens(self.reduce(to_map(tokens, size))))
        mixed = functional.scaled_dot_product_attention(
            split(self.query(tokens), self.heads),
            split(self.key(source), self.heads),
            split(self.value(source), self.heads),
        )
        joined: Tensor = self.dropout(self.output(join(mixed)))
        return joined


class FeedForward(nn.Module):
    """Two pointwise layers with a depthwise 3 x 3 convolution between, which tells positions.

    Args:
        channels: C of the tokens.
        dropout: after the activation, and of what comes out.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        wide = 4 * channels
        self.expand = nn.Conv2d(channels, wide, 1)
        self.position = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.reduce = nn.Conv2d(wide, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """(N, h·w, C) to the same, without the residual."""
        wide = self.position(to_map(pointwise(tokens, self.expand), size))
        wide = self.dropout(functional.gelu(to_tokens(wide)))
        reduced: Tensor = self.dropout(pointwise(wide, self.reduce))
        return reduced


class Block(nn.Module):
    """Self-attention and feed-forward, each behind a layer norm and beside a residual.

    Args:
        channels: C of the tokens.
        heads: of attention.
        reduction: see `SelfAttention`.
        dropout: rate.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=EPSILON)
        self.attention = SelfAttention(channels, heads=heads, reduction=reduction, dropout=dropout)
        self.norm2 = nn.LayerNorm(channels, eps=EPSILON)
        self.feed_forward = FeedForward(channels, dropout=dropout)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """(N, h·w, C) to the same."""
        tokens = tokens + self.attention(self.norm1(tokens), size)
        refined: Tensor = tokens + self.feed_forward(self.norm2(tokens), size)
        return refined
