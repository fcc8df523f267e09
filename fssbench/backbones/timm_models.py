"""Encoders from `timm`: ResNet, VGG and Swin, run block by block, and those of timm's own features.

Layers have timm's module names, with these conventions:

* ResNet: see `fssbench.backbones.stepped.ResNetBackbone`.
* VGG ``features.3`` is the output of a ReLU, ``features.3:pre`` of the convolution before it.
* Swin ``layers.1.blocks.0`` is a block's output: before patch merging, without the final norm.
* ViT ``blocks.11`` is a block's output without class and register tokens, ``norm`` the last one
  after the final norm, ``blocks.9:norm`` any block's output after that norm.
* All others have the names of timm's ``feature_info``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import attrs
import timm
import torch
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn
from torch.nn import functional

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone, LayerInfo
from fssbench.backbones.stepped import (
    ModuleBackbone,
    ResNetBackbone,
    Step,
    SteppedBackbone,
    assemble,
)
from fssbench.errors import FssbenchError


class VggBackbone(SteppedBackbone):
    """The convolutions of a ``timm.models.vgg.VGG`` without batch norm."""

    def steps(self) -> Iterator[Step]:
        """Yield each convolution, named by the ReLU after it; pooling is a nameless step."""
        stride = 1
        for index, module in enumerate(self.model.features):
            if isinstance(module, nn.Conv2d):
                yield Step(module, f"features.{index + 1}", module.out_channels, stride, relu=True)
            elif isinstance(module, nn.MaxPool2d):
                stride *= 2
                yield Step(module)


class SwinBackbone(SteppedBackbone):
    """A ``timm.models.swin_transformer.SwinTransformer``, for images of any size."""

    def steps(self) -> Iterator[Step]:
        """Yield patch embedding, then for each stage patch merging (nameless) and its blocks."""
        yield Step(self.model.patch_embed)
        for stage, info in zip(self.model.layers, self.model.feature_info, strict=True):
            yield Step(stage.downsample)
            for index, block in enumerate(stage.blocks):
                name = f"{info['module']}.blocks.{index}"
                yield Step(partial(_swin_block, block), name, info["num_chs"], info["reduction"])

    def to_map(self, x: Tensor) -> Tensor:
        """Convert (B, h, w, C) to (B, C, h, w)."""
        return x.permute(0, 3, 1, 2).contiguous()


class FeatureBackbone(ModuleBackbone):
    """A model of timm with ``forward_intermediates``, whose layers are timm's own features.

    A vision transformer with a final norm also has the layer ``norm``, the patches' tokens of the
    last block after it, and ``blocks.9:norm`` is any block's output after it. Where timm gives no
    names, or a name twice, layers are ``features.0`` ….

    Attributes:
        positions: interpolation of a vision transformer's position embeddings for images of another
            size than its own: ``timm`` (bicubic with antialiasing) or ``dinov2`` (that of DINOv2's
            own code, bicubic without antialiasing, scaled by a tenth of a position more).
    """

    positions: Literal["timm", "dinov2"] = "timm"

    def all_layers(self) -> dict[str, LayerInfo]:
        """Return timm's features, and ``norm``."""
        entries = self.model.feature_info
        names = [entry["module"] for entry in entries]
        if not all(names) or len(set(names)) < len(names):
            names = [f"features.{index}" for index in range(len(names))]
        final = getattr(self.model, "norm", nn.Identity())
        tokens = hasattr(self.model, "num_prefix_tokens") and names[-1].startswith("blocks.")
        normed = tokens and not isinstance(final, nn.Identity)
        shapes = [LayerInfo(e["num_chs"], e["reduction"], norm=normed) for e in entries]
        self._indices = {name: index for index, name in enumerate(names)}
        layers = dict(zip(names, shapes, strict=True))
        if normed:
            self._indices["norm"] = len(names) - 1
            layers["norm"] = attrs.evolve(shapes[-1], norm=False)
        return layers

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the features of some layers; see `Backbone.forward`."""
        self.info.check(images, layers)
        side = self.info.image_size
        if self.info.multiple == side and images.shape[-2:] != (side, side):
            raise FssbenchError(f"backbone {self.info.name}: takes {side} x {side} pixels only")
        plain = {name: name.removesuffix(":norm") for name in layers}
        indices = sorted({self._indices[name] for name in plain.values()})
        if not indices:
            return {}
        normed = "norm" in layers
        with self._positions():
            found = self.model.forward_intermediates(
                (images - self.mean) / self.std,
                indices=indices,
                stop_early=True,
                intermediates_only=not normed,  # some models end in layers that need all stages
            )
        maps = dict(zip(indices, found[1] if normed else found, strict=True))
        features = {name: maps[self._indices[plain[name]]].contiguous() for name in layers}
        for name in layers:
            if name != plain[name]:  # the norm is of each position by itself
                tokens = self.model.norm(features[name].flatten(2).transpose(1, 2))
                shape = features[name].shape
                features[name] = tokens.transpose(1, 2).reshape(shape).contiguous()
        if normed:
            patches = found[0][:, self.model.num_prefix_tokens :].transpose(1, 2)
            features["norm"] = patches.reshape(features["norm"].shape).contiguous()
        return features

    @contextlib.contextmanager
    def _positions(self) -> Iterator[None]:
        """Interpolate position embeddings by the rule of `positions`."""
        if self.positions == "timm":
            yield
            return
        self.model._pos_embed = partial(_dinov2_positions, self.model, self.model._pos_embed)
        try:
            yield
        finally:
            del self.model._pos_embed  # the method of the class


def _dinov2_positions(model: Any, usual: Callable[[Tensor], Tensor], patches: Tensor) -> Tensor:
    """Add position embeddings to patches (B, h, w, C) as DINOv2's own code does."""
    height, width = patches.shape[1:3]
    if (height, width) == model.patch_embed.grid_size:
        return usual(patches)
    assert model.num_prefix_tokens == 1, "DINOv2's rule is for one class token"
    first, rest = model.pos_embed[:, :1], model.pos_embed[:, 1:]
    grid = rest.unflatten(1, model.patch_embed.grid_size).permute(0, 3, 1, 2)
    scales = [(n + 0.1) / own for n, own in zip((height, width), grid.shape[-2:], strict=True)]
    grid = functional.interpolate(grid.float(), scale_factor=scales, mode="bicubic")
    tokens = patches.flatten(1, 2) + grid.flatten(2).transpose(1, 2).to(patches.dtype)
    return torch.cat([(model.cls_token + first).expand(len(patches), -1, -1), tokens], 1)


def _swin_block(block: SwinTransformerBlock, x: Tensor) -> Tensor:
    """Apply a Swin block to (B, h, w, C) of any h and w.

    As timm's own, but padded *before* the cyclic shift, as in Swin's code for dense prediction:
    timm pads after it, so that its attention mask misses the seam where h or w is no multiple of
    the window. Without padding, both are the same.
    """
    height, width = x.shape[1:3]
    window, shift = block.window_size, block.shift_size
    y = functional.pad(block.norm1(x), (0, 0, 0, -width % window[1], 0, -height % window[0]))
    padded = y.shape[1:3]
    y = torch.roll(y, (-shift[0], -shift[1]), (1, 2))
    windows = window_partition(y, window).flatten(1, 2)  # (B n, window area, C)
    windows = block.attn(windows, mask=block.get_attn_mask(y))
    y = window_reverse(windows.unflatten(1, window), window, *padded)
    y = torch.roll(y, shift, (1, 2))[:, :height, :width]
    x = x + y
    mixed: Tensor = x + block.mlp(block.norm2(x))
    return mixed


def resnet(*, weights: str, name: str, tag: str, url: str = "") -> Backbone:
    """Return a ResNet with ImageNet weights; files in torchvision's format fit."""
    return _from_timm(ResNetBackbone, weights, name, tag, url=url, multiple=1)


def vgg(*, weights: str, name: str, tag: str) -> Backbone:
    """Return a VGG with ImageNet weights; files in torchvision's format fit."""
    # The classifier is discarded: do not draw its hundred million weights first.
    return _from_timm(VggBackbone, weights, name, tag, multiple=1, mlp_ratio=1 / 4096)


def swin(*, weights: str, name: str, tag: str) -> Backbone:
    """Return a Swin transformer; the authors' files fit."""
    return _from_timm(
        SwinBackbone, weights, name, tag, multiple=32, rename=_swin_names, strict_img_size=False
    )


def headless(model: nn.Module) -> nn.Module:
    """Remove the classifier of a timm model."""
    for name in ("fc", "head", "classifier", "pre_logits"):
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    return model


def _from_timm(
    family: type[ModuleBackbone], weights: str, name: str, tag: str, *, multiple: int,
    url: str = "", rename: weight_files.Rename = dict, image_size: int = 384, **options: Any,
) -> Backbone:  # fmt: skip
    return assemble(
        family,
        lambda: headless(timm.create_model(tag, pretrained=False, **options)),
        weight_files.resolve(weights, backbone=name, tag=tag, url=url),
        name=name, tag=tag, rename=rename, image_size=image_size, multiple=multiple,
    )  # fmt: skip


def _swin_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    # The authors merge patches at the end of a stage, timm at the start of the next one.
    moved = "layers.0.downsample.reduction.weight" in state
    return {
        re.sub(r"(?<=^layers\.)\d(?=\.downsample)", _next, name) if moved else name: value
        for name, value in state.items()
        if not name.endswith(("relative_position_index", "attn_mask"))
    }


def _next(match: re.Match[str]) -> str:
    return str(int(match[0]) + 1)
