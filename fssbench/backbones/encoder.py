"""Encoders of image matchers, by role."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from fssbench.backbones.backbone import Backbone, BackboneInfo, WeightsInfo
from fssbench.data.geometry import Geometry
from fssbench.errors import FssbenchError

FEATURES = "fssbench.features"
"""First part of the purpose of `Encoder.features`."""


class Cache(Protocol):
    """A cache of what an encoder computes of images."""

    def __call__(
        self, encoder: Encoder, image: Tensor, purpose: Hashable, compute: Callable[[Tensor], Any]
    ) -> Any:
        """Return ``compute(image)``, or its earlier result."""


def no_cache(
    encoder: Encoder, image: Tensor, purpose: Hashable, compute: Callable[[Tensor], Any]
) -> Any:
    """Return ``compute(image)``."""
    del encoder, purpose
    return compute(image)


class Encoder:
    """A frozen, pretrained model that an `ImageMatcher` uses, under a role.

    Its parameters are counted and its weights are named in the record, apart from the matcher's own
    parameters.

    Args:
        role: role in the method, as in ``MatcherSpec.encoders``.
        name: registered name of the model.
        module: the model: a `Backbone`, or another module with the attribute ``weights``. Its
            parameters are frozen, and it is set to eval mode.

    Attributes:
        role: role in the method.
        name: registered name of the model.
        module: the model.
        weights: origin of its weights.
        cache: cache of results; set by the evaluation.
    """

    def __init__(self, role: str, name: str, module: nn.Module) -> None:
        self.role = role
        self.name = name
        frozen: Any = module.requires_grad_(False).eval()
        self.module = frozen
        self.weights: WeightsInfo = frozen.weights
        self.cache: Cache = no_cache

    @property
    def parameters(self) -> int:
        """Number of parameters of the model."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def info(self) -> BackboneInfo:
        """Names and shapes of the layers of a `Backbone`.

        Raises:
            FssbenchError: the model is no `Backbone`.
        """
        if not isinstance(self.module, Backbone):
            raise FssbenchError(
                f"--encoder {self.role}={self.name}: {type(self.module).__name__} has no layers of "
                "features; choose another encoder for this role"
            )
        return self.module.info

    def features(
        self,
        image: Tensor,
        layers: Sequence[str],
        *,
        size: int | None = None,
        resize: Literal["squash", "letterbox"] = "squash",
    ) -> Mapping[str, Tensor]:
        """Return features of an image, float (C, h, w) by layer, cached.

        Args:
            image: (3, H, W), uint8, or float in [0, 1].
            layers: names of layers, as in `Backbone.forward`.
            size: side of the square that the image is resized to; None for the side that the
                encoder was made for. A float image of that size is encoded as it is.
            resize: resizing of other shapes; see `Geometry`.

        Raises:
            FssbenchError: the encoder is no `Backbone`, lacks a layer, or does not take the size.
        """
        geometry = Geometry(size or self.info.image_size, resize)

        def encode(image: Tensor) -> dict[str, Tensor]:
            square = geometry.image(image)[None]
            batch = square if square.is_floating_point() else square.float() / 255
            maps = self.module(batch, layers)
            return {name: maps[name][0] for name in layers}

        found: Mapping[str, Tensor] = self.cached(
            image, (FEATURES, *layers, geometry.size, resize), encode
        )
        return found

    def cached(self, image: Tensor, purpose: Hashable, compute: Callable[[Tensor], Any]) -> Any:
        """Return what a function computes of an image, from the cache if it was computed before.

        Args:
            image: image, of any shape and dtype; equal pixels are the same image.
            purpose: name of the function and values of all its other arguments.
            compute: function of the image alone. Its result consists of tensors, also nested in
                attrs classes, mappings, lists or tuples; the caller must not change them.
        """
        with torch.no_grad():
            return self.cache(self, image, purpose, compute)
