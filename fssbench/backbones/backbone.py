"""The interface of frozen encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import attrs
from torch import Tensor, nn

from fssbench.errors import FssbenchError, near


@attrs.frozen
class LayerInfo:
    """What a layer gives.

    Attributes:
        channels: C of its (B, C, h, w) output.
        stride: input pixels per output position, along each side.
        relu: the layer ends in a ReLU, so that ``name:pre`` (the output before it) exists too.
    """

    channels: int
    stride: int
    relu: bool = False


@attrs.frozen(kw_only=True)
class BackboneInfo:
    """What a matcher may know of its backbone: everything but the weights.

    Attributes:
        name: the registered name.
        layers: every addressable layer, shallow to deep.
        image_size: input side, in pixels, that the encoder was made for.
        multiple: input sides must be multiples of this.
    """

    name: str
    layers: Mapping[str, LayerInfo]
    image_size: int
    multiple: int

    @property
    def last_layer(self) -> str:
        """Name of the deepest layer."""
        return list(self.layers)[-1]

    def layer(self, name: str) -> LayerInfo:
        """What the layer `name` gives; ``name:pre`` (before its last ReLU) has the same shape.

        Raises:
            FssbenchError: the backbone has no such layer.
        """
        plain = name.removesuffix(":pre")
        if plain not in self.layers:
            raise FssbenchError(
                f"backbone {self.name} has no layer {name!r}; {near(plain, self.layers)}"
                f"it has {', '.join(self.layers)}"
            )
        return self.layers[plain]

    def check(self, images: Tensor, layers: Sequence[str]) -> None:
        """Tell whether a backbone can compute `layers` of `images`, for use in `Backbone.forward`.

        Raises:
            FssbenchError: there is no such layer, or a side of the images is not a multiple of
                `multiple`.
        """
        for name in layers:
            if name.endswith(":pre") and not self.layer(name).relu:
                raise FssbenchError(
                    f"backbone {self.name}: layer {name.removesuffix(':pre')!r} does not end in a "
                    f"ReLU, so there is no {name!r}; ask for the layer itself"
                )
            self.layer(name)
        height, width = images.shape[-2:]
        if height % self.multiple or width % self.multiple or not height or not width:
            raise FssbenchError(
                f"backbone {self.name}: images of {height} x {width} pixels; make both sides "
                f"multiples of {self.multiple}"
            )


@attrs.frozen(kw_only=True)
class WeightsInfo:
    """Where weights come from, as the record tells it.

    Attributes:
        source: ``pretrained``, ``random``, ``file`` or ``none`` (the encoder has no weights).
        name: tag or file name (never a path).
        sha256: hash of the weight file; "" for ``random`` and ``none``.
    """

    source: str
    name: str = ""
    sha256: str = ""


class Backbone(nn.Module, ABC):
    """A frozen encoder in eval mode, which owns its mean and standard deviation.

    Attributes:
        info: names and shapes of what it gives.
        weights: where its weights come from.
        mean: float (3, 1, 1), the colour in [0, 1] that the encoder sees as zero.
        std: float (3, 1, 1), by which colours are divided after that.
    """

    info: BackboneInfo
    weights: WeightsInfo
    mean: Tensor
    std: Tensor

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Every addressable layer, shallow to deep."""
        return self.info.layers

    @abstractmethod
    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of some layers.

        Args:
            images: float (B, 3, H, W), RGB in [0, 1]; H and W multiples of ``info.multiple``.
            layers: names from `layers`; ``name:pre`` is the output before the block's last ReLU,
                for blocks that end in one.

        Returns:
            For each name a float (B, C, H / stride, W / stride) tensor, rounded up or down by the
            encoder's own rule where `info.multiple` allows sides that do not divide.

        Raises:
            FssbenchError: there is no such layer.
        """

    def freeze(self) -> Self:
        """Switch gradients off and eval mode on, for good."""
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever module this one is part of."""
        del mode
        return super().train(False)
