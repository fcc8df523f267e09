"""The interface of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from fssbench.backbones.backbone import BackboneInfo
from fssbench.matchers.prepared import PreparedSupport
from fssbench.nn import together


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

    # Images come back in other episodes. What a matcher makes of one image alone is made once for
    # that image where these four are overridden; without them, features are all that is kept.

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Any:
        """What one annotated image says by itself; once for each image and class.

        Args:
            features: for each requested layer a float (1, C, h, w) tensor.
            mask: uint8 (1, H, W), as in `embed_support`.

        Returns:
            Anything that `join_supports` understands: tensors, in attrs classes, mappings, lists or
            tuples, whose size counts against the budget of memory. By default, what came in.
        """
        return PreparedSupport(features, mask)

    def join_supports(self, prepared: Sequence[Sequence[Any]]) -> Any:
        """Supports of B episodes from their prepared images.

        Args:
            prepared: B lists of K values of `prepare_support`.

        Returns:
            What `embed_support` gives for the same images.
        """
        stacked = {
            layer: torch.stack([torch.cat([one.features[layer] for one in k]) for k in prepared])
            for layer in prepared[0][0].features
        }
        masks = torch.stack([torch.cat([one.mask for one in k]) for k in prepared])
        return self.embed_support(stacked, masks)

    def prepare_query(self, features: Mapping[str, Tensor]) -> Any:
        """What of a query does not depend on its support; once for each image.

        Args:
            features: for each requested layer a float (1, C, h, w) tensor.

        Returns:
            As of `prepare_support`, for `segment_prepared`. By default, what came in.
        """
        return features

    def segment_prepared(self, queries: Sequence[Any], support: Any) -> Tensor:
        """As `segment`, of B prepared queries.

        Args:
            queries: B values of `prepare_query`.
            support: what `join_supports` gave for the same B episodes.
        """
        return self.segment(together(queries), support)

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
