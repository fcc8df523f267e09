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
from fssbench.backbones.stepped import Step, SteppedBackbone, assemble
from fssbench.backbones.timm_models import headless
from fssbench.errors import FssbenchError

TAG = "mobilenetv2_100.ra_in1k"


class MobileNetV2Backbone(SteppedBackbone):
    """A ``timm.models.efficientnet.EfficientNet`` of depthwise-separable and inverted blocks."""

    def steps(self) -> Iterator[Step]:
        """Yield the stem, the blocks, and the last convolution."""
        model, stride = self.model, 2
        yield Step(lambda x: model.bn1(model.conv_stem(x)))
        for s, stage in enumerate(model.blocks):
            for b, block in enumerate(stage):
                stride *= block.conv_dw.stride[0]
                last = block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw
                yield Step(block, f"blocks.{s}.{b}", last.out_channels, stride)
        head = model.conv_head
        yield Step(lambda x: model.bn2(head(x)), "conv_head", head.out_channels, stride)


def mobilenetv2(*, weights: str) -> Backbone:
    """Return MobileNetV2 1.0.

    A weight file contains timm's state dict, or TensorFlow's 8-bit network as ``.npz``: for each
    convolution ``NAME.weight_q`` (uint8), ``NAME.scale``, ``NAME.zero_point``, ``NAME.bias`` and
    ``NAME.stride``, with batch norm folded in. The latter has TensorFlow's padding, mean and
    standard deviation 0.5, and no batch norms, whose statistics could be updated by training. Its
    state dict in a checkpoint is recognised by the biases.
    """
    name = "mobilenetv2"
    source = weight_files.resolve(weights, backbone=name, tag=TAG)
    state = source.state or {}
    quantised = "features.0.weight_q" in state
    tensorflow = quantised or "conv_stem.bias" in state
    return assemble(
        MobileNetV2Backbone,
        _folded if tensorflow else lambda: headless(timm.create_model(TAG, pretrained=False)),
        source,
        name=name,
        tag="" if tensorflow else TAG,
        rename=partial(_from_tensorflow, file=source.info.name) if quantised else dict,
        image_size=384,
        multiple=1,
    )


def _folded() -> nn.Module:
    """Build TensorFlow's encoder: biases instead of batch norms, and its own padding."""
    model: Any = headless(timm.create_model(TAG, pretrained=False, pad_type="same"))
    for _, convolution, norm in _names():
        conv = model.get_submodule(convolution)
        conv.bias = nn.Parameter(torch.zeros(conv.out_channels))
        model.set_submodule(norm, model.get_submodule(norm).act)
    return model  # type: ignore[no-any-return]


def _from_tensorflow(state: Mapping[str, Tensor], file: str) -> dict[str, Tensor]:
    """Return float tensors by the names of `_folded`, from the 8-bit network in `file`.

    Raises:
        FssbenchError: a tensor is missing, or not of the format's shape or type.
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
    # Unknown tensors are passed on, so that the error message names them.
    return found | {key: state[key] for key in unread}


def _names() -> Iterator[tuple[str, str, str]]:
    """Yield TensorFlow's name of each convolution, and timm's of it and its norm and activation."""
    yield "features.0", "conv_stem", "bn1"
    yield "features.1.depthwise", "blocks.0.0.conv_dw", "blocks.0.0.bn1"
    yield "features.1.project", "blocks.0.0.conv_pw", "blocks.0.0.bn2"
    stages = enumerate((2, 3, 4, 3, 3, 1), start=1)
    blocks = (f"blocks.{stage}.{block}" for stage, count in stages for block in range(count))
    for number, block in enumerate(blocks, start=2):
        yield f"features.{number}.expand", f"{block}.conv_pw", f"{block}.bn1"
        yield f"features.{number}.depthwise", f"{block}.conv_dw", f"{block}.bn2"
        yield f"features.{number}.project", f"{block}.conv_pwl", f"{block}.bn3"
    yield "features.18", "conv_head", "bn2"
