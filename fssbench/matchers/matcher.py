"""The interface of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
from torch import Tensor, nn

from fssbench.backbones.backbone import BackboneInfo
from fssbench.matchers.stage import Stage


@attrs.frozen(kw_only=True)
class FeatureRequest:
    """What a matcher wants of the backbone.

    Attributes:
        layers: names of backbone layers.
        size: side of the square encoder input, in pixels.
        resize: how an image of another shape becomes that square: ``squash`` (each side on its
            own, as HSNet, DCAMA and HDMNet do) or ``letterbox`` (aspect kept, black below or to
            the right; mask 255 there).
        mask_support: set the background of support images to the encoder's mean before encoding
            (as HDMNet does), which makes a support's features depend on its class.
    """

    layers: tuple[str, ...]
    size: int
    resize: Literal["squash", "letterbox"] = "squash"
    mask_support: bool = False


class Matcher(nn.Module, ABC):
    """A few-shot segmentation method on top of a frozen backbone.

    It holds no parameter of the backbone: features come in, logits go out. Subclasses take
    ``(config, backbone)``, keyword arguments, and may keep both.

    Args:
        config: the options object of the method's spec, or None.
        backbone: names and shapes of the features that it will get.
    """

    def __init__(self, *, config: Any, backbone: BackboneInfo) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    @abstractmethod
    def request(self) -> FeatureRequest:
        """Which features the matcher needs, and how images are brought to the encoder's size."""

    @abstractmethod
    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Any:
        """What the annotated images say. Runs once for a support set, whatever the queries.

        Args:
            features: for each requested layer a float (B, K, C, h, w) tensor.
            masks: uint8 (B, K, H, W) of 0, 1 and 255 (ignore), at the encoder's input size.

        Returns:
            Anything that `segment` understands.
        """

    @abstractmethod
    def segment(self, query: Mapping[str, Tensor], support: Any) -> Tensor:
        """Segment B queries, each with its own support.

        Args:
            query: for each requested layer a float (B, C, h, w) tensor.
            support: what `embed_support` gave for the same B episodes.

        Returns:
            Float (B, h', w') logits over the whole encoder input; above 0 is foreground. A network
            with two output channels returns ``logits[:, 1] - logits[:, 0]``.
        """

    def maps(self, query: Mapping[str, Tensor], support: Any) -> Mapping[str, Tensor]:
        """What panels draw over the query beside the prediction: correlation, attention, priors.

        Args:
            query: as in `segment`.
            support: as in `segment`.

        Returns:
            By caption a float (B, h, w) map over the whole encoder input, on any scale; none by
            default.
        """
        del query, support
        return {}

    def stages(self) -> Sequence[Stage]:
        """How the method is trained, phase after phase; none for a method without training."""
        return ()
