"""The encoders of the PSPNet line of work: PFENet, BAM and HDMNet.

Their layers are whole stages, ``layer0`` (the stem with its pooling) to ``layer4``:

* ResNet has a stem of three 3 x 3 convolutions, and dilation instead of the last two strides, so
  that everything after ``layer1`` has stride 8. Dilation is that of PSPNet's code: 2 in all blocks
  of ``layer3`` and 4 in all of ``layer4``, the first one included (timm's ``output_stride`` gives
  the first block the dilation of the stage before).
* VGG-16 has batch norm; a stage ends after its pooling, but for ``layer4``, whose pooling is left
  out. So ``layer3`` and ``layer4`` have stride 16.

Weights go by the names in the authors' checkpoints: ``layer0.0.weight`` ….
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import timm
from torch import Tensor, nn

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.timm_models import Step, TimmBackbone

STAGES = ("layer0", "layer1", "layer2", "layer3", "layer4")
IMAGE_SIZE = 473
_VGG_CUTS = (0, 7, 14, 24, 34, 43)  # where stages begin in the list of VGG's modules
_VGG_CHANNELS = (64, 128, 256, 512, 512)
_VGG_STRIDES = (2, 4, 8, 16, 16)


class PspResNetBackbone(TimmBackbone):
    """Bottleneck stages behind a deep stem, which give ceil(H / 8) rows of ``layer2`` and above."""

    def __init__(self, model: Any, **arguments: Any) -> None:
        for name in STAGES[1:]:  # the walk applies a stage's last ReLU, so that it can stop before
            model.get_submodule(name)[-1].act3 = nn.Identity()
        super().__init__(model, **arguments)

    def steps(self) -> Iterator[Step]:
        """The stem, then the four stages."""
        yield Step(self.model.layer0, "layer0", 128, 4)
        for name, channels, stride in zip(
            STAGES[1:], (256, 512, 1024, 2048), (4, 8, 8, 8), strict=True
        ):
            yield Step(self.model.get_submodule(name), name, channels, stride, relu=True)


class PspVggBackbone(TimmBackbone):
    """VGG's modules cut into five stages; each gives ceil(H / stride) rows."""

    def steps(self) -> Iterator[Step]:
        """The five stages. All end in pooling but the last, which ends in a ReLU."""
        for name, channels, stride in zip(STAGES, _VGG_CHANNELS, _VGG_STRIDES, strict=True):
            stage = self.model.get_submodule(name)
            relu = isinstance(stage[-1], nn.ReLU)
            yield Step(stage[:-1] if relu else stage, name, channels, stride, relu=relu)


def resnet_psp(*, weights: str, name: str, tag: str, architecture: str) -> Backbone:
    """A ResNet as in PSPNet's code.

    Files fit with the names of the authors' checkpoints (``layer0.0.weight``; a base learner's or a
    matcher's tensors beside them are left aside), of PSPNet's ImageNet weights
    (``conv1.weight``, ``conv2.weight``, ``conv3.weight``) or of timm's (``conv1.0.weight``).
    """
    return _build(
        PspResNetBackbone,
        lambda: _dilated_resnet(architecture),
        _resnet_names,
        weights=weights,
        name=name,
        tag=tag,
    )


def vgg_psp(*, weights: str, name: str, tag: str) -> Backbone:
    """VGG-16 with batch norm, in five stages.

    Files fit with the names of the authors' checkpoints, or of torchvision and timm
    (``features.0.weight``).
    """
    return _build(
        PspVggBackbone,
        lambda: _staged_vgg(tag),
        _vgg_names,
        weights=weights,
        name=name,
        tag=tag,
    )


def _build(
    family: type[TimmBackbone],
    make: Any,
    rename: Any,
    *,
    weights: str,
    name: str,
    tag: str,
) -> Backbone:
    source = weight_files.resolve(weights, backbone=name, tag=tag)
    model = weight_files.build(make, source, backbone=name, rename=rename)
    known = weight_files.hub_entry(tag)
    return family(
        model,
        name=name,
        image_size=IMAGE_SIZE,
        multiple=1,
        mean=known.mean,
        std=known.std,
        weights=source.info,
    ).freeze()


def _dilated_resnet(architecture: str) -> nn.Module:
    plain: Any = timm.create_model(architecture, pretrained=False, num_classes=0)
    for stage, dilation in ((plain.layer3, 2), (plain.layer4, 4)):
        for block in stage:
            block.conv2.dilation = block.conv2.padding = (dilation, dilation)
            block.conv2.stride = (1, 1)
        stage[0].downsample[0].stride = (1, 1)
    return _stages(
        nn.Sequential(*plain.conv1, plain.bn1, plain.act1, plain.maxpool),
        plain.layer1,
        plain.layer2,
        plain.layer3,
        plain.layer4,
    )


def _staged_vgg(tag: str) -> nn.Module:
    # The classifier is not used: do not draw its hundred million weights.
    plain: Any = timm.create_model(tag, pretrained=False, num_classes=0, mlp_ratio=1 / 4096)
    for module in plain.features:
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True  # as in PFENet's code: 473 pixels become 237, 119, 60 and 30
    # A slice keeps the places of the whole list; each stage counts from 0.
    return _stages(*(nn.Sequential(*plain.features[a:b]) for a, b in pairwise(_VGG_CUTS)))


def _stages(*stages: nn.Module) -> nn.Module:
    model = nn.Module()
    for name, stage in zip(STAGES, stages, strict=True):
        model.add_module(name, stage)
    return model


def _staged(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The encoder's tensors of a file that names stages; None if it does not."""
    if not any(name.startswith("layer0.") for name in state):
        return None
    return {name: value for name, value in state.items() if name.partition(".")[0] in STAGES}


def _resnet_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    staged = _staged(state)
    if staged is not None:
        return staged
    timms = "conv1.0.weight" in state
    stem = (
        {"conv1.0": 0, "conv1.1": 1, "conv1.3": 3, "conv1.4": 4, "conv1.6": 6, "bn1": 7}
        if timms
        else {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
    )
    places = {name: f"layer0.{place}" for name, place in stem.items()}
    renamed = {}
    for name, value in state.items():
        module, _, parameter = name.rpartition(".")
        renamed[f"{places.get(module, module)}.{parameter}"] = value
    return renamed


def _vgg_names(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    staged = _staged(state)
    if staged is not None:
        return staged
    return {re.sub(r"^features\.(\d+)", _vgg_stage, name): value for name, value in state.items()}


def _vgg_stage(match: re.Match[str]) -> str:
    place = int(match[1])
    stage = sum(place >= cut for cut in _VGG_CUTS) - 1
    if stage >= len(STAGES):
        return match[0]
    return f"{STAGES[stage]}.{place - _VGG_CUTS[stage]}"
