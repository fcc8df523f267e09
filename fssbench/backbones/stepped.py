"""Frozen encoders that run step by step, and the ResNet among them.

This module does not import timm, which takes seconds.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone, BackboneInfo, LayerInfo, WeightsInfo


class Step(NamedTuple):
    """One step of an encoder's forward pass (no attrs class: torch.compile must trace it).

    Attributes:
        run: function that computes the step, without the ReLU at its end.
        name: name of the layer, "" if it cannot be requested.
        channels: channels of its output.
        stride: stride of its output, in input pixels.
        relu: true if the step ends in a ReLU.
    """

    run: Callable[[Tensor], Tensor]
    name: str = ""
    channels: int = 0
    stride: int = 0
    relu: bool = False


class ModuleBackbone(Backbone):
    """A frozen encoder made of one module, and the colours that it expects.

    Args:
        model: the encoder, without a head; the backbone takes it over.
        name: the registered name.
        image_size: input side, in pixels, that the encoder was made for.
        multiple: input sides must be multiples of this.
        mean: mean of each colour channel, in [0, 1].
        std: standard deviation of each colour channel, in [0, 1].
        weights: origin of the weights.
        layers: layers that can be requested, or None for all.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        image_size: int,
        multiple: int,
        mean: Sequence[float],
        std: Sequence[float],
        weights: WeightsInfo,
        layers: Mapping[str, LayerInfo] | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.weights = weights
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        known = self.all_layers()
        self.info = BackboneInfo(
            name=name,
            layers=known if layers is None else layers,
            image_size=image_size,
            multiple=multiple,
        )

    @abstractmethod
    def all_layers(self) -> dict[str, LayerInfo]:
        """Return all layers of the model by name, shallow to deep."""


class SteppedBackbone(ModuleBackbone):
    """A frozen encoder that runs step by step, up to the deepest requested layer."""

    @abstractmethod
    def steps(self) -> Iterator[Step]:
        """Yield the steps of the encoder, shallow to deep."""

    def all_layers(self) -> dict[str, LayerInfo]:
        """Return the layers of all steps that have a name."""
        return {
            step.name: LayerInfo(step.channels, step.stride, relu=step.relu)
            for step in self.steps()
            if step.name
        }

    def to_map(self, x: Tensor) -> Tensor:
        """Convert the intermediate result of a step to (B, C, h, w)."""
        return x

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the features of some layers; see `Backbone.forward`."""
        self.info.check(images, layers)
        wanted = set(layers)
        features: dict[str, Tensor] = {}
        x = (images - self.mean) / self.std
        for step in self.steps():
            if len(features) == len(wanted):
                break
            x = step.run(x)
            if step.relu:
                before = f"{step.name}:pre"
                if before in wanted:
                    features[before] = self.to_map(x)
                x = functional.relu(x, inplace=before not in wanted)
            if step.name in wanted:
                features[step.name] = self.to_map(x)
        return {name: features[name] for name in layers}


class ResNetBackbone(SteppedBackbone):
    """A ResNet with timm's module names, of basic or bottleneck blocks that end in a ReLU.

    ``layer3.5`` is a block's output, ``layer3.5:pre`` the residual sum before its last ReLU.
    """

    def __init__(self, model: Any, **arguments: Any) -> None:
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            for block in stage:  # `forward` applies the last ReLU, so that it can stop before it
                setattr(block, "act3" if hasattr(block, "act3") else "act2", nn.Identity())
        super().__init__(model, **arguments)

    def steps(self) -> Iterator[Step]:
        """Yield the stem, then every block of the four stages."""
        model = self.model
        yield Step(lambda x: model.maxpool(model.act1(model.bn1(model.conv1(x)))))
        for stage in model.feature_info[1:]:
            for index, block in enumerate(model.get_submodule(stage["module"])):
                name = f"{stage['module']}.{index}"
                yield Step(block, name, stage["num_chs"], stage["reduction"], relu=True)


def assemble(
    family: type[ModuleBackbone],
    make: Callable[[], nn.Module],
    source: weight_files.Source,
    *,
    name: str,
    tag: str = "",
    rename: weight_files.Rename = dict,
    **info: Any,
) -> Backbone:
    """Make a frozen backbone.

    Args:
        family: class of the backbone.
        make: function that builds the encoder with random weights, without a head.
        source: the weights.
        name: the registered name.
        tag: tag of timm's weights, whose mean and standard deviation are used; 0.5 without a tag.
        rename: function that maps the names in authors' own files to the names of the module.
        info: ``image_size``, ``multiple`` and perhaps ``layers`` of the backbone.
    """
    colours = weight_files.hub_entry(tag) if tag else None
    return family(
        weight_files.build(make, source, backbone=name, rename=rename),
        name=name,
        mean=colours.mean if colours else (0.5, 0.5, 0.5),
        std=colours.std if colours else (0.5, 0.5, 0.5),
        weights=source.info,
        **info,
    ).freeze()
