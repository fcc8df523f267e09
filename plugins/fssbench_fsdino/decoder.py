"""SAM's mask decoder and parts of its prompt encoder, for batches of different images.

Kirillov et al., Segment Anything, ICCV 2023, section 3 and appendix A. The modules are those of
the package `segment_anything`, with the names of SAM's checkpoint files. SAM decodes many prompts
of one image; here each sample of a batch has its own image, sparse prompts and dense prompt.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import mask_decoder
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from segment_anything.modeling.transformer import Attention, TwoWayTransformer
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

_HEAD = 32  # channels of an attention head: 8 heads at SAM's width


class MaskDecoder(mask_decoder.MaskDecoder):
    """SAM's mask decoder, restricted to the single mask of an unambiguous prompt.

    Args:
        width: channels of image embedding and prompts (SAM: 256, which makes 4,058,340 parameters).
        inner: width of the feed-forward networks of the tokens.
        depth: number of two-way blocks.
    """

    def __init__(self, width: int = 256, *, inner: int = 2048, depth: int = 2) -> None:
        transformer = TwoWayTransformer(
            depth=depth, embedding_dim=width, num_heads=max(1, width // _HEAD), mlp_dim=inner
        )
        for module in transformer.modules():
            if isinstance(module, Attention):  # SAM's classes take no other attention
                module.__class__ = FusedAttention
        super().__init__(transformer_dim=width, transformer=transformer, iou_head_hidden_dim=width)
        # SAM's own layer norm rounds to bfloat16 under autocast, this one computes in float32.
        self.output_upscaling[1] = LayerNorm2d(width // 4)

    def forward(  # type: ignore[override]  # one mask for each of several images
        self, embedding: Tensor, positions: Tensor, sparse: Tensor, dense: Tensor
    ) -> Tensor:
        """Return the logits of the single mask that SAM predicts for an unambiguous prompt.

        Args:
            embedding: image embeddings, (B, width, h, w).
            positions: positional encoding of the embedding's grid, (width, h, w).
            sparse: sparse prompts, (B, N, width); N may be 0.
            dense: dense prompts, (B, width, h, w).

        Returns:
            Logits, (B, 4 h, 4 w).
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(embedding), -1, -1), sparse.to(own.dtype)], 1)
        tokens, image = self.transformer(
            embedding + dense, positions[None].to(embedding.dtype), tokens
        )
        maps = self.output_upscaling(image.transpose(1, 2).unflatten(2, embedding.shape[-2:]))
        # Token 0 estimates the quality, token 1 is that of the single mask.
        filters = self.output_hypernetworks_mlps[0](tokens[:, 1])
        return torch.einsum("bc,bchw->bhw", filters, maps)

    def used(self, *, wanted: bool = True) -> list[nn.Parameter]:
        """Return the parameters that `forward` uses, or all others.

        Heads of further masks and of the mask's quality are not used.

        Args:
            wanted: False for the parameters that are not used.
        """
        heads = ("iou_prediction_head.", *(f"output_hypernetworks_mlps.{n}." for n in (1, 2, 3)))
        return [p for name, p in self.named_parameters() if name.startswith(heads) != wanted]


class FusedAttention(Attention):
    """SAM's attention in torch's fused operation.

    The rounding of published rows depends on it; the weights of all pairs need no memory.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from queries (B, Q, width) to keys and values (B, S, width): (B, Q, width)."""
        mixed = functional.scaled_dot_product_attention(
            self._separate_heads(self.q_proj(q), self.num_heads),
            self._separate_heads(self.k_proj(k), self.num_heads),
            self._separate_heads(self.v_proj(v), self.num_heads),
        )
        return self.out_proj(self._recombine_heads(mixed))


class FourierPositions(PositionEmbeddingRandom):
    """Positions as sines and cosines of random directions (Tancik et al., NeurIPS 2020).

    In SAM the Gaussian matrix is fixed; here it is learned (section 3.4.2).

    Args:
        width: channels of a position; the matrix is (2, width / 2).
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__(width // 2)
        matrix = self._buffers.pop("positional_encoding_gaussian_matrix")
        assert matrix is not None
        self.positional_encoding_gaussian_matrix = nn.Parameter(matrix)

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Return the positions of the cell centres of a grid of (h, w): float32 (width, h, w)."""
        # Neighbours' angles are equal in bfloat16, so autocast is disabled.
        with torch.autocast(self.positional_encoding_gaussian_matrix.device.type, enabled=False):
            return super().forward(size)


class MaskDownscaling(nn.Sequential):
    """SAM's embedding of a mask as a dense prompt: (B, 1, 4 h, 4 w) to (B, width, h, w).

    Args:
        width: channels of the prompt.
        hidden: channels of the last hidden layer.
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
