"""Blocks of the feature pyramid: self-attention with reduced keys, and a convolutional MLP.

They are those of SegFormer (Xie et al., NeurIPS 2021, section 3.1), as the authors' code takes them
from mmsegmentation, without its drop path, whose rate is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from fssbench_hdmnet.maps import join, pointwise, split, to_map, to_tokens

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class SelfAttention(nn.Module):
    """Multi-head self-attention of a feature map (equation 2 with F_q = F_s).

    Args:
        channels: C, channels of the tokens.
        heads: number of attention heads, a divisor of C.
        reduction: stride of the convolution that computes the source of keys and values, so that
            there are 1 / reduction² as many of them; 1 for no convolution.
        dropout: dropout rate of the output.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.reduce: nn.Conv2d | None = None
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = LayerNorm(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Return the attention's output, without the residual.

        Args:
            tokens: normalised tokens, (N, h·w, C).
            size: h and w.

        Returns:
            (N, h·w, C).
        """
        source = tokens
        if self.reduce is not None:
            source = self.norm(to_tokens(self.reduce(to_map(tokens, size))))
        mixed = functional.scaled_dot_product_attention(
            split(self.query(tokens), self.heads),
            split(self.key(source), self.heads),
            split(self.value(source), self.heads),
        )
        return self.dropout(self.output(join(mixed)))


class FeedForward(nn.Module):
    """Two pointwise layers and between them a depthwise 3 x 3 convolution, which encodes positions.

    Args:
        channels: C, channels of the tokens.
        dropout: dropout rate after the activation and of the output.
    """

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        wide = 4 * channels
        self.expand = nn.Conv2d(channels, wide, 1)
        self.position = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.reduce = nn.Conv2d(wide, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (N, h·w, C) to tokens of the same shape, without the residual."""
        wide = self.position(to_map(pointwise(tokens, self.expand), size))
        wide = self.dropout(functional.gelu(to_tokens(wide)))
        return self.dropout(pointwise(wide, self.reduce))


class Block(nn.Module):
    """Self-attention and feed-forward network, each with a layer norm before it and a residual.

    Args:
        channels: C, channels of the tokens.
        heads: number of attention heads.
        reduction: stride of the keys; see `SelfAttention`.
        dropout: dropout rate.
    """

    def __init__(self, channels: int, *, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attention = SelfAttention(channels, heads=heads, reduction=reduction, dropout=dropout)
        self.norm2 = LayerNorm(channels)
        self.feed_forward = FeedForward(channels, dropout=dropout)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Map tokens (N, h·w, C) to tokens of the same shape."""
        tokens = tokens + self.attention(self.norm1(tokens), size)
        return tokens + self.feed_forward(self.norm2(tokens), size)
