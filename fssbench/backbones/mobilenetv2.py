"""MobileNetV2 (Sandler et al., CVPR 2018), also with the weights of TensorFlow's 8-bit network.

Layers are ``blocks.S.B``, the linear output of a block, and ``conv_head``, the last 1 x 1
convolution after its ReLU6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.timm_models import Step, TimmBackbone, headless
from fssbench.errors import FssbenchError

TAG = "mobilenetv2_100.ra_in1k"


class MobileNetV2Backbone(TimmBackbone):
    """A ``timm.models.efficientnet.EfficientNet`` of depthwise-separable and inverted blocks."""

    def steps(self) -> Iterator[Step]:
        """The stem, the blocks, and the last convolution."""
        model, stride = self.model, 2
        yield Step(lambda x: model.bn1(model.conv_stem(x)))
        for s, stage in enumerate(model.blocks):
            for b, block in enumerate(stage):
                stride *= block.conv_dw.stride[0]
                last = block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw
                yield Step(block, f"blocks.{s}.{b}", last.out_channels, stride)
        yield Step(
            lambda x: model.bn2(model.conv_head(x)),
            "conv_head",
            model.conv_head.out_channels,
            stride,
        )


def mobilenetv2(*, weights: str) -> Backbone:
    """MobileNetV2 1.0.

    A file may hold timm's state dict, or TensorFlow's 8-bit network as ``.npz``: for each
    convolution ``NAME.weight_q`` (uint8), ``NAME.scale``, ``NAME.zero_point``, ``NAME.bias`` and
    ``NAME.stride``, with batch norm folded in. The latter runs with TensorFlow's padding and mean
    and standard deviation 0.5, and without batch norms: a training that updates their statistics
    would undo what was folded in. A checkpoint that brings it is known by its biases.
    """
    name = "mobilenetv2"
    source = weight_files.resolve(weights, backbone=name, tag=TAG)
    state = source.state or {}
    quantised = "features.0.weight_q" in state
    tensorflow = quantised or "conv_stem.bias" in state
    known = weight_files.hub_entry(TAG)
    model = weight_files.build(
        folded if tensorflow else make,
        source,
        backbone=name,
        rename=partial(from_tensorflow, file=source.info.name) if quantised else dict,
    )
    return MobileNetV2Backbone(
        model,
        name=name,
        image_size=384,
        multiple=32,
        mean=(0.5, 0.5, 0.5) if tensorflow else known.mean,
        std=(0.5, 0.5, 0.5) if tensorflow else known.std,
        weights=source.info,
    ).freeze()


def make() -> nn.Module:
    """The encoder with random weights."""
    return headless(timm.create_model(TAG, pretrained=False))


def folded() -> nn.Module:
    """TensorFlow's encoder: convolutions with biases in place of norms, its padding."""
    model = headless(timm.create_model(TAG, pretrained=False, pad_type="same"))
    for _, convolution, norm in _names():
        conv: Any = model.get_submodule(convolution)
        conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
        owner, _, last = norm.rpartition(".")
        activation = model.get_submodule(norm).act
        assert isinstance(activation, nn.Module)
        setattr(model.get_submodule(owner), last, activation)
    return model


def from_tensorflow(state: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """Float tensors by the names of `folded`, from the 8-bit network that `file` holds.

    Raises:
        FssbenchError: a tensor is missing, or not of the shape or type that the format says.
    """
    found: dict[str, Tensor] = {}
    unread = set(state)
    for name, convolution, _ in _names():
        parts = {part: f"{name}.{part}" for part in ("weight_q", "scale", "zero_point", "bias")}
        missing = [key for key in parts.values() if key not in state]
        if missing:
            raise FssbenchError(
                f"weights {file}: an 8-bit network without {missing[0]}; give the whole file"
            )
        weight, scale, zero, bias = (state[key] for key in parts.values())
        plain = weight.dtype == torch.uint8 and scale.numel() == zero.numel() == 1
        if not plain or weight.ndim != 4 or bias.shape != weight.shape[:1]:
            raise FssbenchError(
                f"weights {file}: {name} is not uint8 (out, in, h, w) with one scale, "
                "one zero point and one bias for each output; give an unchanged file"
            )
        found[f"{convolution}.weight"] = (weight.float() - zero) * scale
        found[f"{convolution}.bias"] = bias
        unread -= {*parts.values(), f"{name}.stride"}
    # What is left over does not belong here, and is told by its own name.
    return found | {key: state[key] for key in unread}


def _names() -> Iterator[tuple[str, str, str]]:
    """TensorFlow's name, and timm's names of the convolution and its norm with activation."""
    yield "features.0", "conv_stem", "bn1"
    yield "features.1.depthwise", "blocks.0.0.conv_dw", "blocks.0.0.bn1"
    yield "features.1.project", "blocks.0.0.conv_pw", "blocks.0.0.bn2"
    number = 2
    for stage, blocks in enumerate((2, 3, 4, 3, 3, 1), start=1):
        for block in range(blocks):
            for part, convolution, norm in (
                ("expand", "conv_pw", "bn1"),
                ("depthwise", "conv_dw", "bn2"),
                ("project", "conv_pwl", "bn3"),
            ):
                base = f"blocks.{stage}.{block}"
                yield f"features.{number}.{part}", f"{base}.{convolution}", f"{base}.{norm}"
            number += 1
    yield "features.18", "conv_head", "bn2"
