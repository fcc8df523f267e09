"""SAM's mask decoder and what it needs of SAM's prompt encoder, for batches of different images.

Kirillov et al., Segment Anything, ICCV 2023, section 3 and appendix A. Modules and parameters have
the names of SAM's checkpoint files. SAM takes one image with many prompts; here every sample of a
batch has its own image, its own prompts and its own dense prompt, and none sees another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench_fsdino.norm import LayerNorm2d

_HEAD = 32  # channels of an attention head: 8 heads at SAM's width
MASKS = 3
"""Masks that SAM predicts for an ambiguous prompt, beside the single one."""


class MaskDecoder(nn.Module):
    """Tokens and image look at each other twice; a mask token then says which pixels are its own.

    Args:
        width: channels of image embedding and prompts (SAM: 256, which makes 4,058,340 parameters).
        inner: width of the feed-forward networks of the tokens.
        depth: two-way blocks.
    """

    def __init__(self, width: int = 256, *, inner: int = 2048, depth: int = 2) -> None:
        super().__init__()
        heads = max(1, width // _HEAD)
        self.transformer = TwoWayTransformer(width, heads=heads, inner=inner, depth=depth)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(1 + MASKS, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Mlp((width, width, width, width // 8)) for _ in range(1 + MASKS)
        )
        self.iou_prediction_head = Mlp((width, width, width, 1 + MASKS))

    def forward(
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> Tensor:
        """The single mask that SAM gives for an unambiguous prompt.

        Args:
            embedding: of the images, (B, width, h, w).
            positions: of the embedding's places, (1, width, h, w).
            sparse: prompts, (B, N, width); N may be 0.
            dense: prompt, (B, width, h, w).

        Returns:
            (B, 4 h, 4 w) logits.
        """
        tokens, image = self._decode(embedding, positions, sparse, dense)
        return self._masks(tokens, image, range(1))[:, 0]

    def every_mask(
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All masks and their estimated quality, as SAM gives them.

        Args:
            embedding: as in `forward`, and so are the others.
            positions: same.
            sparse: same.
            dense: same.

        Returns:
            Logits (B, 4, 4 h, 4 w), the single mask first, and IoU estimates (B, 4).
        """
        tokens, image = self._decode(embedding, positions, sparse, dense)
        masks = self._masks(tokens, image, range(1 + MASKS))
        return masks, self.iou_prediction_head(tokens[:, 0])

    def used(self) -> list[nn.Parameter]:
        """The parameters that `forward` depends on: neither other masks' heads nor the quality."""
        unused = {
            id(parameter)
            for module in (self.iou_prediction_head, *self.output_hypernetworks_mlps[1:])
            for parameter in module.parameters()
        }
        return [parameter for parameter in self.parameters() if id(parameter) not in unused]

    def _decode(
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(embedding), -1, -1), sparse.to(own.dtype)], 1)
        size = embedding.shape[-2:]
        tokens, image = self.transformer(
            tokens, _tokens(embedding + dense), _tokens(positions.to(embedding.dtype))
        )
        return tokens, image.transpose(1, 2).unflatten(2, size)

    def _masks(self, tokens: Tensor, image: Tensor, which: Sequence[int]) -> Tensor:
        maps = self.output_upscaling(image)  # (B, width / 8, 4 h, 4 w)
        filters = torch.stack(
            [self.output_hypernetworks_mlps[n](tokens[:, 1 + n]) for n in which], 1
        )
        return torch.einsum("bnc,bchw->bnhw", filters, maps)


class TwoWayTransformer(nn.Module):
    """Attention from tokens to the image and back, with positions added each time.

    Args:
        width: channels of both.
        heads: of each attention.
        inner: width of the feed-forward networks of the tokens.
        depth: blocks.
    """

    def __init__(self, width: int, *, heads: int, inner: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, heads=heads, inner=inner, first=number == 0)
            for number in range(depth)
        )
        self.final_attn_token_to_image = Attention(width, heads, reduction=2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, image: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Run the blocks, and a last look at the image.

        Args:
            tokens: (B, N, width); they are their own positions.
            image: (B, h·w, width).
            places: positions of the image, (1, h·w, width).

        Returns:
            Tokens and image of the same shapes.
        """
        names = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, names, places)
        looked = self.final_attn_token_to_image(tokens + names, image + places, image)
        return self.norm_final_attn(tokens + looked), image


class TwoWayBlock(nn.Module):
    """Tokens to tokens, tokens to image, a feed-forward network, image to tokens.

    Args:
        width: channels.
        heads: of each attention.
        inner: width of the feed-forward network.
        first: the first block: tokens are their own positions there, so none are added in their
            self-attention, which replaces them instead of being added to them.
    """

    def __init__(self, width: int, *, heads: int, inner: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, heads, reduction=2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _FeedForward(width, inner)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, heads, reduction=2)

    def forward(
        self, tokens: Tensor, image: Tensor, names: Tensor, places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, width) and image (B, h·w, width) to the same shapes."""
        if self.first:
            tokens = self.norm1(self.self_attn(tokens, tokens, tokens))
        else:
            named = tokens + names
            tokens = self.norm1(tokens + self.self_attn(named, named, tokens))
        placed = image + places
        looked = self.cross_attn_token_to_image(tokens + names, placed, image)
        tokens = self.norm2(tokens + looked)
        tokens = self.norm3(tokens + self.mlp(tokens))
        told = self.cross_attn_image_to_token(placed, tokens + names, tokens)
        return tokens, self.norm4(image + told)


class Attention(nn.Module):
    """Multi-head attention in a space that may be narrower than its input.

    Args:
        width: channels of input and output.
        heads: they divide ``width / reduction`` among them.
        reduction: how much narrower queries, keys and values are.
    """

    def __init__(self, width: int, heads: int, *, reduction: int = 1) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width // reduction)
        self.k_proj = nn.Linear(width, width // reduction)
        self.v_proj = nn.Linear(width, width // reduction)
        self.out_proj = nn.Linear(width // reduction, width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, Q, width), (B, S, width), (B, S, width) to (B, Q, width)."""
        mixed = functional.scaled_dot_product_attention(
            self._split(self.q_proj(queries)),
            self._split(self.k_proj(keys)),
            self._split(self.v_proj(values)),
        )
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        heads = tokens.view(batch, length, self.heads, width // self.heads)
        return heads.transpose(1, 2)


class Mlp(nn.Module):
    """Linear layers with ReLUs between them.

    Args:
        widths: of the input, of each hidden layer, of the output.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(…, first width) to (…, last width)."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        last: Tensor = self.layers[-1](x)
        return last


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, inner)
        self.lin2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        fed: Tensor = self.lin2(self.lin1(x).relu())
        return fed


class FourierPositions(nn.Module):
    """Positions as sines and cosines of random directions (Tancik et al., NeurIPS 2020).

    In SAM the Gaussian matrix is fixed; here it is learned (section 3.4.2).

    Args:
        width: channels of a position; the matrix is (2, width / 2).
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.positional_encoding_gaussian_matrix = nn.Parameter(torch.randn(2, width // 2))

    def forward(self, height: int, width: int) -> Tensor:
        """Positions of a grid's cell centres: float32 (1, channels, height, width)."""
        matrix = self.positional_encoding_gaussian_matrix
        y = (torch.arange(height, device=matrix.device) + 0.5) / height
        x = (torch.arange(width, device=matrix.device) + 0.5) / width
        rows, columns = torch.meshgrid(y, x, indexing="ij")
        places = 2 * torch.stack([columns, rows], -1) - 1  # (h, w, 2), x first, in [-1, 1]
        # Not under autocast: bf16 cannot tell the angles of neighbours apart.
        with torch.autocast(matrix.device.type, enabled=False):
            angles = 2 * math.pi * (places.to(matrix.dtype) @ matrix)
        return torch.cat([angles.sin(), angles.cos()], -1).permute(2, 0, 1)[None]


class MaskDownscaling(nn.Sequential):
    """SAM's way from a mask to a dense prompt: (B, 1, 4 h, 4 w) to (B, width, h, w).

    Args:
        width: channels of the prompt.
        hidden: channels before them.
    """

    def __init__(self, width: int = 256, hidden: int = 16) -> None:
        super().__init__(
            nn.Conv2d(1, hidden // 4, 2, stride=2),
            LayerNorm2d(hidden // 4),
            nn.GELU(),
            nn.Conv2d(hidden // 4, hidden, 2, stride=2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, width, 1),
        )


def _tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)
