"""The encoders of the PSPNet line of work: PFENet, BAM and HDMNet.

Layers are whole stages, ``layer0`` (the stem with its pooling) to ``layer4``:

* ResNet has a stem of three 3 x 3 convolutions, and dilation instead of the last two strides, so
  that all layers after ``layer1`` have stride 8. As in PSPNet's code, the dilation is 2 in all
  blocks of ``layer3`` and 4 in all of ``layer4``, including the first (where timm's
  ``output_stride`` uses the dilation of the stage before).
* VGG-16 has batch norm. A stage ends after its pooling, except ``layer4``, whose pooling is
  removed. So ``layer3`` and ``layer4`` have stride 16.

Weights have the names of the authors' checkpoints: ``layer0.0.weight`` ….
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import timm
from torch import Tensor, nn

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.stepped import Step, SteppedBackbone, assemble

STAGES = ("layer0", "layer1", "layer2", "layer3", "layer4")
IMAGE_SIZE = 473
_VGG_CUTS = (0, 7, 14, 24, 34, 43)  # indices of VGG's modules at which stages begin
_VGG_CHANNELS = (64, 128, 256, 512, 512)
_VGG_STRIDES = (2, 4, 8, 16, 16)


class PspResNetBackbone(SteppedBackbone):
    """Bottleneck stages after a deep stem; ``layer2`` to ``layer4`` have ceil(H / 8) rows."""

    def __init__(self, model: Any, **arguments: Any) -> None:
        for name in STAGES[1:]:  # `forward` applies a stage's last ReLU, so that it can stop before
            model.get_submodule(name)[-1].act3 = nn.Identity()
        super().__init__(model, **arguments)

    def steps(self) -> Iterator[Step]:
        """Yield the stem, then the four stages."""
        yield Step(self.model.layer0, "layer0", 128, 4)
        for index, name in enumerate(STAGES[1:]):
            stride = 4 if index == 0 else 8
            yield Step(self.model.get_submodule(name), name, 256 << index, stride, relu=True)


class PspVggBackbone(SteppedBackbone):
    """VGG's modules in five stages, each of ceil(H / stride) rows."""

    def steps(self) -> Iterator[Step]:
        """Yield the five stages; the last one ends in a ReLU, the others in pooling."""
        for name, channels, stride in zip(STAGES, _VGG_CHANNELS, _VGG_STRIDES, strict=True):
            stage = self.model.get_submodule(name)
            relu = isinstance(stage[-1], nn.ReLU)
            yield Step(stage[:-1] if relu else stage, name, channels, stride, relu=relu)


def resnet_psp(*, weights: str, name: str, tag: str) -> Backbone:
    """Return a ResNet as in PSPNet's code.

    Weight files have the names of the authors' checkpoints (``layer0.0.weight``; tensors of a base
    learner or a matcher are ignored), of PSPNet's ImageNet weights (``conv1.weight``,
    ``conv2.weight``, ``conv3.weight``) or of timm's (``conv1.0.weight``).
    """
    return _psp(PspResNetBackbone, _dilated_resnet, _resnet_names, weights, name, tag)


def vgg_psp(*, weights: str, name: str, tag: str) -> Backbone:
    """Return VGG-16 with batch norm, in five stages.

    Weight files have the names of the authors' checkpoints, or of torchvision and timm
    (``features.0.weight``).
    """
    return _psp(PspVggBackbone, _staged_vgg, _vgg_names, weights, name, tag)


def _psp(
    family: type[SteppedBackbone], make: Callable[[str], nn.Module], rename: weight_files.Rename,
    weights: str, name: str, tag: str,
) -> Backbone:  # fmt: skip
    return assemble(
        family,
        lambda: make(tag),
        weight_files.resolve(weights, backbone=name, tag=tag),
        name=name,
        tag=tag,
        rename=lambda state: _stage_names(state) or rename(state),
        image_size=IMAGE_SIZE,
        multiple=1,
    )


def _dilated_resnet(tag: str) -> nn.Module:
    plain: Any = timm.create_model(tag, pretrained=False, num_classes=0)
    for stage, dilation in ((plain.layer3, 2), (plain.layer4, 4)):
        for block in stage:
            block.conv2.dilation = block.conv2.padding = (dilation, dilation)
            block.conv2.stride = (1, 1)
        stage[0].downsample[0].stride = (1, 1)
    stem = nn.Sequential(*plain.conv1, plain.bn1, plain.act1, plain.maxpool)
    return _stages(stem, plain.layer1, plain.layer2, plain.layer3, plain.layer4)


def _staged_vgg(tag: str) -> nn.Module:
    # The classifier is discarded: do not draw its hundred million weights first.
    plain: Any = timm.create_model(tag, pretrained=False, num_classes=0, mlp_ratio=1 / 4096)
    for module in plain.features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True  # as in PFENet's code: 473 pixels become 237, 119, 60 and 30
    # Slices have the module names of the whole list; names in a stage begin with 0.
    return _stages(*(nn.Sequential(*plain.features[a:b]) for a, b in pairwise(_VGG_CUTS)))


def _stages(*stages: nn.Module) -> nn.Module:
    model = nn.Module()
    for name, stage in zip(STAGES, stages, strict=True):
        model.add_module(name, stage)
    return model


def _stage_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the encoder's tensors of a file with stage names; empty for other files."""
    staged = any(name.startswith("layer0.") for name in state)
    return {k: v for k, v in state.items() if staged and k.partition(".")[0] in STAGES}


def _resnet_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    stem = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
    if "conv1.0.weight" in state:  # timm's names
        stem = {"conv1.0": 0, "conv1.1": 1, "conv1.3": 3, "conv1.4": 4, "conv1.6": 6, "bn1": 7}
    renamed = {}
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        stage = f"layer0.{stem[module]}" if module in stem else module
        renamed[f"{stage}.{parameter}"] = value
    return renamed


def _vgg_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {re.sub(r"^features\.(\d+)", _vgg_stage, name): value for name, value in state.items()}


def _vgg_stage(match: re.Match[str]) -> str:
    index = int(match[1])
    stage = sum(index >= cut for cut in _VGG_CUTS) - 1
    if stage >= len(STAGES):
        return match[0]
    return f"{STAGES[stage]}.{index - _VGG_CUTS[stage]}"
