"""The bottleneck adapter: early features of a vision transformer to SAM's embedding space."""

from __future__ import annotations

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from fssbench import BackboneInfo, FssbenchError

# Section 3.3.1 takes the 3rd block of DINOv2-B; blocks of S and L are those of the paper's later
# version (UINO-FSS, section IV-C, footnote). Keys: (blocks, channels).
_CHOSEN = {(12, 384): 2, (12, 768): 3, (24, 1024): 4}
_HEAD = 16  # channels of an attention head


class BottleneckAdapter(nn.Module):
    """Convolutions down to a narrow width, two self-attention blocks, and up again (section 3.3.1).

    1 x 1 C → 256, 3 x 3 256 → 256, 1 x 1 256 → 128; two blocks "following the structure of"
    Vaswani et al. (norms after the residual sums) of width 128 with an inner layer of 512; 1 x 1
    128 → 256. For DINOv2-B that is 1.25 M parameters, the paper's "1 M". The paper names neither
    norms nor activations nor heads: here each of the first three convolutions has a layer norm
    (as SAM's own neck), the first two a GELU after it, and attention has 8 heads (of 16 channels).
    No positions are added: the encoder's features contain them.

    Args:
        channels: channels of the input features.
        width: channels of the first two convolutions.
        inner: channels of the self-attention blocks; their inner layer is four times as wide.
        out: channels of SAM's embedding.
        blocks: number of self-attention blocks.
    """

    def __init__(
        self, channels: int, *, width: int = 256, inner: int = 128, out: int = 256, blocks: int = 2
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            LayerNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, inner, 1),
            LayerNorm2d(inner),
        )
        self.blocks = nn.ModuleList(SelfAttentionBlock(inner, 4 * inner) for _ in range(blocks))
        self.expand = nn.Conv2d(inner, out, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Predict SAM's embedding of an image.

        Args:
            features: features of an early block, (B, C, h, w), for any h and w.

        Returns:
            (B, out, h, w).
        """
        maps = self.reduce(features)
        size = maps.shape[-2:]
        tokens = maps.flatten(2).transpose(1, 2)  # (B, h·w, inner)
        for block in self.blocks:
            tokens = block(tokens)
        return self.expand(tokens.transpose(1, 2).unflatten(2, size))


class SelfAttentionBlock(nn.Module):
    """A transformer's encoder layer (Vaswani et al., 2017, section 3.1), without dropout.

    Args:
        channels: channels of a token; the matrices of Q, K and V are (channels, channels).
        inner: width of the feed-forward network's inner layer.
    """

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels)
        self.feed = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, channels) to tokens of the same shape."""
        batch, length, channels = tokens.shape
        split = self.qkv(tokens).view(batch, length, 3, self.heads, channels // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)  # each (B, heads, N, d)
        mixed = functional.scaled_dot_product_attention(queries, keys, values)
        tokens = self.norm1(tokens + self.project(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(tokens + self.feed(tokens))


def early_layer(backbone: BackboneInfo, wanted: str = "") -> str:
    """Return the layer that the adapter reads.

    Args:
        backbone: vision transformer with layers named ``blocks.N``.
        wanted: name of the layer; "" for the 2nd, 3rd and 4th block of DINOv2-S, -B and -L, and
            for the block at a quarter of the depth of any other encoder.

    Raises:
        FssbenchError: the backbone has no such layers, or the wanted layer has another stride than
            the last one.
    """
    last = backbone.layer(backbone.last_layer)
    if wanted:
        if backbone.layer(wanted).stride != last.stride:
            raise FssbenchError(
                f"layer={wanted}: its stride is {backbone.layer(wanted).stride} and that of "
                f"{backbone.last_layer} is {last.stride}; choose a layer of that stride"
            )
        return wanted
    blocks = [name for name in backbone.layers if name.startswith("blocks.")]
    if not blocks or any(backbone.layers[name].stride != last.stride for name in blocks):
        raise FssbenchError(
            f"backbone {backbone.name}: no vision transformer of one scale; choose "
            "dinov2-s, dinov2-b, dinov2-l or tiny-vit, or name a layer with the option layer"
        )
    depth = len(blocks)
    chosen = _CHOSEN.get((depth, backbone.layers[blocks[0]].channels), max(1, round(depth / 4)))
    return blocks[chosen - 1]
