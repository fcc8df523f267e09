"""SAM's image encoders (Kirillov et al., Segment Anything, ICCV 2023), from `timm`.

Layers are ``blocks.N``, a block's output, and ``neck``, the 256-channel input of the mask decoder.
Files in the authors' format (``image_encoder.…`` and other tensors) fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import timm
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.timm_models import Step, SteppedBackbone, assemble, headless
from fssbench.errors import FssbenchError

_PREFIX = "image_encoder."
# The epsilon of the authors' code; timm's default is 1e-5.
_NORM: Any = partial(nn.LayerNorm, eps=1e-6)


class SamBackbone(SteppedBackbone):
    """A ``timm.models.vision_transformer_sam.VisionTransformerSAM`` with a neck.

    Position embeddings are interpolated for images of other sizes than SAM's 1024 pixels.
    """

    def steps(self) -> Iterator[Step]:
        """Yield the embedding, the blocks, and the neck."""
        model = self.model
        stride = model.patch_embed.patch_size[0]
        yield Step(self._embed)
        for index, block in enumerate(model.blocks):
            yield Step(block, f"blocks.{index}", model.embed_dim, stride)
        yield Step(self._neck, "neck", model.num_features, stride)

    def to_map(self, x: Tensor) -> Tensor:
        """Convert (B, h, w, C) to (B, C, h, w)."""
        return x.permute(0, 3, 1, 2).contiguous()

    def _embed(self, x: Tensor) -> Tensor:
        model = self.model
        patches: Tensor = model.patch_embed(x)
        positions: Tensor = resample_abs_pos_embed_nhwc(model.pos_embed, list(patches.shape[1:3]))
        return patches + positions

    def _neck(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.model.neck(x.permute(0, 3, 1, 2))
        return embedding.permute(0, 2, 3, 1)


def sam(*, weights: str, name: str, tag: str) -> Backbone:
    """Return one of SAM's encoders, for images of 1024 pixels; the authors' files fit."""
    source = weight_files.resolve(weights, backbone=name, tag=tag)
    make = partial(timm.create_model, tag, pretrained=False, norm_layer=_NORM)
    return _sam(make, source, name, 1024)


def tiny_sam(*, weights: str) -> Backbone:
    """Return SAM's architecture at a size for tests: 4 blocks of 96 channels, 160 pixels.

    Raises:
        FssbenchError: `weights` is ``pretrained``; there are no trained weights.
    """
    name = "tiny-sam"
    if weights == weight_files.PRETRAINED:
        raise FssbenchError(f"{name} was never trained: give --weights random, or a file")
    source = weight_files.resolve(weights, backbone=name)
    make = partial(
        VisionTransformerSAM, img_size=160, patch_size=16, embed_dim=96, depth=4, num_heads=3,
        num_classes=0, use_rel_pos=True, window_size=5, global_attn_indexes=(1, 3),
        norm_layer=_NORM,
    )  # fmt: skip
    return _sam(make, source, name, 160)


def _sam(
    make: Callable[[], nn.Module], source: weight_files.Source, name: str, size: int
) -> Backbone:
    return assemble(
        SamBackbone,
        lambda: _with_random_positions(headless(make())),
        source,
        name=name,
        tag="samvit_base_patch16.sa1b",  # all sizes have the same mean and standard deviation
        rename=_without_decoder,
        image_size=size,
        multiple=16,
    )


def _without_decoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors of an authors' or timm's file by timm's names."""
    own = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    return {k.replace("mlp.lin", "mlp.fc"): v for k, v in (own or state).items()}


def _with_random_positions(model: nn.Module) -> nn.Module:
    """Draw the position embeddings, which timm leaves at zero."""
    for name, parameter in model.named_parameters():
        if name == "pos_embed" or "rel_pos" in name:
            nn.init.normal_(parameter, std=0.02)
    return model
