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
    """Shape of the output of a layer.

    Attributes:
        channels: channels C of the output (B, C, h, w).
        stride: stride of the output, in input pixels.
        relu: true if the layer ends in a ReLU, so that ``name:pre`` (the output before it) exists.
        norm: true if ``name:norm`` (the output after the encoder's final norm) exists.
    """

    channels: int
    stride: int
    relu: bool = False
    norm: bool = False


@attrs.frozen(kw_only=True)
class BackboneInfo:
    """Description of a backbone for matchers: everything but the weights.

    Attributes:
        name: registered name.
        layers: addressable layers by name, shallow to deep.
        image_size: input side, in pixels, that the encoder was made for.
        multiple: divisor of the input sides.
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
        """Return the shape of the output `name`, ``name:pre`` or ``name:norm``; see `LayerInfo`.

        Raises:
            FssbenchError: the backbone has no such layer.
        """
        plain = name.removesuffix(":pre").removesuffix(":norm")
        if plain not in self.layers:
            raise FssbenchError(
                f"backbone {self.name} has no layer {name!r}; {near(plain, self.layers)}"
                f"it has {', '.join(self.layers)}"
            )
        return self.layers[plain]

    def check(self, images: Tensor, layers: Sequence[str]) -> None:
        """Check the arguments of `Backbone.forward`.

        Raises:
            FssbenchError: a layer does not exist, or a side of the images is not a multiple of
                `multiple`.
        """
        for name in layers:
            if name.endswith(":pre") and not self.layer(name).relu:
                raise FssbenchError(
                    f"backbone {self.name}: layer {name.removesuffix(':pre')!r} does not end in a "
                    f"ReLU, so there is no {name!r}; ask for the layer itself"
                )
            if name.endswith(":norm") and not self.layer(name).norm:
                raise FssbenchError(
                    f"backbone {self.name}: there is no {name!r}, the output of layer "
                    f"{name.removesuffix(':norm')!r} after a final norm; ask for the layer itself"
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
    """Origin of the weights, for the record.

    Attributes:
        source: ``pretrained``, ``random``, ``file`` or ``none`` (the encoder has no weights).
        name: tag, or name of the file without its folder.
        sha256: hash of the weight file; "" for ``random`` and ``none``.
    """

    source: str
    name: str = ""
    sha256: str = ""


class Backbone(nn.Module, ABC):
    """A frozen encoder in eval mode that normalises its input itself.

    Attributes:
        info: names and shapes of the layers.
        weights: origin of the weights.
        mean: mean colour in [0, 1] that is subtracted, float (3, 1, 1).
        std: standard deviation of colours that they are divided by, float (3, 1, 1).
    """

    info: BackboneInfo
    weights: WeightsInfo
    mean: Tensor
    std: Tensor

    @property
    def layers(self) -> Mapping[str, LayerInfo]:
        """Addressable layers by name, shallow to deep."""
        return self.info.layers

    @abstractmethod
    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute the features of some layers.

        Args:
            images: images, float (B, 3, H, W), RGB in [0, 1]; H and W are multiples of
                ``info.multiple``.
            layers: names from `layers`; or ``name:pre`` for the output before the last ReLU of a
                layer that ends in one, and ``name:norm`` for that after the encoder's final norm.

        Returns:
            Float (B, C, H / stride, W / stride) by name; sides that the stride does not divide are
            rounded up or down, depending on the encoder.

        Raises:
            FssbenchError: a layer does not exist, or a side of the images does not fit.
        """

    def freeze(self) -> Self:
        """Switch to eval mode without gradients, permanently."""
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, also as part of another module in training mode."""
        del mode
        return super().train(False)
