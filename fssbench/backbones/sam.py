"""SAM (Kirillov et al., Segment Anything, ICCV 2023): image encoders, and the promptable model.

The encoders are those of `timm`, the promptable model consists of the modules of the authors'
package `segment_anything`. Layers of the encoders are ``blocks.N``, a block's output, and ``neck``,
the 256-channel input of the mask decoder. Files in the authors' format (``image_encoder.…`` and
other tensors) fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import timm
import torch
from segment_anything.modeling.image_encoder import ImageEncoderViT
from segment_anything.modeling.mask_decoder import MaskDecoder
from segment_anything.modeling.prompt_encoder import PromptEncoder
from segment_anything.modeling.transformer import TwoWayTransformer
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn
from torch.nn import functional

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.stepped import Step, SteppedBackbone, assemble
from fssbench.backbones.timm_models import headless
from fssbench.errors import FssbenchError, near

_PREFIX = "image_encoder."
_TAG = "samvit_base_patch16.sa1b"  # all sizes have the same mean and standard deviation
# The epsilon of the authors' code; timm's default is 1e-5.
_NORM: Any = partial(nn.LayerNorm, eps=1e-6)
_WIDTH = 256  # channels of the embedding of images and prompts
_PATCH = 16
# Input side, and sizes of the image encoder, by the names of the registered encoders.
_SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "sam-vit-b": (1024, {"embed_dim": 768, "depth": 12, "num_heads": 12,
                         "window_size": 14, "global_attn_indexes": (2, 5, 8, 11)}),
    "sam-vit-l": (1024, {"embed_dim": 1024, "depth": 24, "num_heads": 16,
                         "window_size": 14, "global_attn_indexes": (5, 11, 17, 23)}),
    "sam-vit-h": (1024, {"embed_dim": 1280, "depth": 32, "num_heads": 16,
                         "window_size": 14, "global_attn_indexes": (7, 15, 23, 31)}),
    "tiny-sam": (160, {"embed_dim": 96, "depth": 4, "num_heads": 3,
                       "window_size": 5, "global_attn_indexes": (1, 3)}),
}  # fmt: skip


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


@attrs.frozen(kw_only=True, eq=False)
class SamMasks:
    """Masks of N prompts, M for each: one, or three of an ambiguous prompt.

    Attributes:
        logits: logits at the requested size, float (N, M, height, width); positive inside.
        iou: predicted intersection over union of each mask, float (N, M).
        low_resolution: logits of the padded square, float (N, M, 4 g, 4 g) for an embedding of
            g x g cells; a mask of them is a possible prompt.
    """

    logits: Tensor
    iou: Tensor
    low_resolution: Tensor


class PromptableSam(nn.Module):
    """SAM with its prompt encoder and mask decoder, in eval mode.

    The names of its tensors are those of SAM's files. No parameter is frozen.

    Args:
        name: ``sam-vit-b``, ``sam-vit-l``, ``sam-vit-h``, or ``tiny-sam`` for tests.
        weights: SAM's file, e.g. ``sam_vit_b_01ec64.pth``, or ``random``.

    Attributes:
        side: side of the square that images are resized and padded to, in pixels.
        weights: origin of the weights.

    Raises:
        FssbenchError: there is no such size, or the weights cannot be read or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str = "sam-vit-b", weights: str | Path = weight_files.RANDOM) -> None:
        super().__init__()
        if name not in _SIZES:
            raise FssbenchError(
                f"no SAM is called {name!r}; {near(name, _SIZES)}there are {', '.join(_SIZES)}"
            )
        if str(weights) in (weight_files.PRETRAINED, weight_files.NONE):
            raise FssbenchError(
                f"weights {weights} of {name}: the hub has the image encoder alone; download the "
                "file from SAM's authors and give it, or random"
            )
        self.side, sizes = _SIZES[name]
        source = weight_files.resolve(str(weights), backbone=name)
        parts: Any = weight_files.build(partial(_parts, self.side, sizes), source, backbone=name)
        self.weights = source.info
        self.image_encoder = parts["image_encoder"]
        self.prompt_encoder = parts["prompt_encoder"]
        self.mask_decoder = parts["mask_decoder"]
        colours = weight_files.hub_entry(_TAG)
        for key, values in (("mean", colours.mean), ("std", colours.std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.eval()

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings of images: float (B, 3, H, W) in [0, 1] to (B, 256, g, g).

        g is 64, and 10 of ``tiny-sam``. The longer side is resized to `side` (bilinear, with
        antialiasing) and the image padded at the bottom or right with the mean colour.
        """
        inside = self._inside(images.shape[-2:])
        if images.shape[-2:] != inside:
            images = functional.interpolate(images, inside, mode="bilinear", antialias=True)
        padding = (0, self.side - inside[1], 0, self.side - inside[0])
        embedding: Tensor = self.image_encoder(
            functional.pad((images - self.mean) / self.std, padding)
        )
        return embedding

    def predict(
        self,
        embedding: Tensor,
        image_size: Sequence[int],
        *,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        multimask: bool = False,
        size: Sequence[int] | None = None,
    ) -> SamMasks:
        """Return the masks of N prompts of one image.

        A prompt may have points, a box and a mask at once. Coordinates are (x, y) in pixels of the
        original image.

        Args:
            embedding: embedding of the image, (256, g, g).
            image_size: height and width of the original image.
            points: points, float (N, P, 2).
            labels: labels of the points, integer (N, P): 1 in the object, 0 outside of it, -1 for
                a point that only fills up the tensor.
            boxes: boxes as (left, top, right, bottom), float (N, 4).
            masks: logits at `image_size`, float (N, height, width), or one mask for each prompt of
                an earlier `SamMasks.low_resolution`, (N, 4 g, 4 g). The former are resized
                (bilinear, with antialiasing) and padded with 0.
            multimask: True for three masks of each prompt instead of one, for ambiguous prompts.
            size: height and width of the logits; None for `image_size`.

        Raises:
            FssbenchError: there is no prompt, or a tensor is not of the stated shape.
        """
        self._check(embedding, image_size, points, labels, boxes, masks)
        inside = self._inside(image_size)
        scale = embedding.new_tensor([inside[1] / image_size[1], inside[0] / image_size[0]])
        sparse, dense = self.prompt_encoder(
            points=None if points is None else (points * scale, labels),
            boxes=None if boxes is None else boxes * scale.repeat(2),
            masks=None if masks is None else self._square(masks)[:, None],
        )
        low, iou = self.mask_decoder(
            image_embeddings=embedding[None],
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        whole = functional.interpolate(low, (self.side, self.side), mode="bilinear")
        content = whole[..., : inside[0], : inside[1]]
        logits = functional.interpolate(content, tuple(size or image_size), mode="bilinear")
        return SamMasks(logits=logits, iou=iou, low_resolution=low)

    def _inside(self, size: Sequence[int]) -> tuple[int, int]:
        """Return the height and width of an image in the square, rounded as in SAM's code."""
        scale = self.side / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))

    def _square(self, masks: Tensor) -> Tensor:
        """Return masks (N, h, w) as logits of the padded square, (N, 4 g, 4 g)."""
        side = self.prompt_encoder.mask_input_size[0]
        if masks.shape[1:] == (side, side):
            return masks
        shrink = self.side // side
        inside = [max(1, round(length / shrink)) for length in self._inside(masks.shape[1:])]
        small = functional.interpolate(masks[:, None], inside, mode="bilinear", antialias=True)
        return functional.pad(small[:, 0], (0, side - inside[1], 0, side - inside[0]))

    def _check(
        self,
        embedding: Tensor,
        image_size: Sequence[int],
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
    ) -> None:
        grid = self.side // _PATCH
        prompts = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
        given = {name: tuple(t.shape) for name, t in prompts.items() if t is not None}
        if not given:
            raise FssbenchError("no prompt: give points with labels, boxes or masks")
        count = next(iter(given.values()))[0]
        number = given.get("points", (0, 0, 0))[1:2]
        allowed: dict[str, list[tuple[int, ...]]] = {
            "embedding": [(_WIDTH, grid, grid)],
            "points": [(count, *number, 2)],
            "labels": [(count, *number)],
            "boxes": [(count, 4)],
            "masks": [(count, *image_size), (count, 4 * grid, 4 * grid)],
        }
        if ("points" in given) != ("labels" in given):
            raise FssbenchError("points and labels are given together")
        for name, shape in {"embedding": tuple(embedding.shape), **given}.items():
            if shape not in allowed[name]:
                wanted = " or ".join(map(str, allowed[name]))
                raise FssbenchError(f"{name}: a tensor of {wanted} was expected, not {shape}")


def _parts(side: int, sizes: dict[str, Any]) -> nn.Module:
    """Make SAM's three parts with random weights, by the names in SAM's files."""
    grid = side // _PATCH
    return nn.ModuleDict(
        {
            "image_encoder": ImageEncoderViT(
                img_size=side, patch_size=_PATCH, out_chans=_WIDTH, use_rel_pos=True,
                norm_layer=_NORM, **sizes,
            ),
            "prompt_encoder": PromptEncoder(
                embed_dim=_WIDTH, image_embedding_size=(grid, grid),
                input_image_size=(side, side), mask_in_chans=16,
            ),
            "mask_decoder": MaskDecoder(
                transformer_dim=_WIDTH,
                transformer=TwoWayTransformer(
                    depth=2, embedding_dim=_WIDTH, mlp_dim=2048, num_heads=8
                ),
            ),
        }
    )  # fmt: skip


def sam(*, weights: str, name: str, tag: str) -> Backbone:
    """Return one of SAM's encoders, for images of 1024 pixels; the authors' files fit."""
    source = weight_files.resolve(weights, backbone=name, tag=tag)
    make = partial(timm.create_model, tag, pretrained=False, norm_layer=_NORM)
    return _sam(make, source, name, _SIZES[name][0])


def tiny_sam(*, weights: str) -> Backbone:
    """Return SAM's architecture at a size for tests: 4 blocks of 96 channels, 160 pixels.

    Raises:
        FssbenchError: `weights` is ``pretrained``; there are no trained weights.
    """
    name = "tiny-sam"
    source = weight_files.resolve(weights, backbone=name)
    side, sizes = _SIZES[name]
    make = partial(
        VisionTransformerSAM, img_size=side, patch_size=_PATCH, num_classes=0, use_rel_pos=True,
        norm_layer=_NORM, **sizes,
    )  # fmt: skip
    return _sam(make, source, name, side)


def _sam(
    make: Callable[[], nn.Module], source: weight_files.Source, name: str, size: int
) -> Backbone:
    return assemble(
        SamBackbone,
        lambda: _with_random_positions(headless(make())),
        source,
        name=name,
        tag=_TAG,
        rename=_without_decoder,
        image_size=size,
        multiple=_PATCH,
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
