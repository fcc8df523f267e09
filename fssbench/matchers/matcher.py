"""The interface of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import cattrs
import torch
from torch import Tensor, nn

from fssbench.backbones.backbone import BackboneInfo
from fssbench.matchers.prepared import PreparedSupport
from fssbench.nn import together


@attrs.frozen(kw_only=True)
class FeatureRequest:
    """The features that a matcher needs, and the geometry of the encoder's input.

    Attributes:
        layers: names of backbone layers.
        size: side of the square encoder input, in pixels.
        resize: resizing of other shapes to that square: ``squash`` (each side separately, as in
            HSNet, DCAMA and HDMNet) or ``letterbox`` (same aspect ratio, padded with black below or
            to the right, where the mask is 255).
        mask_support: whether the background of support images is set to the encoder's mean before
            encoding (as in HDMNet), which makes a support's features depend on its class.
    """

    layers: tuple[str, ...]
    size: int
    resize: Literal["squash", "letterbox"] = "squash"
    mask_support: bool = False


class Matcher(nn.Module, ABC):
    """A few-shot segmentation method on top of a frozen backbone.

    A matcher maps features to logits and holds no parameter of the backbone. Subclasses take the
    keyword arguments ``config`` and ``backbone``.

    Args:
        config: options object of the method's spec, or None.
        backbone: names and shapes of the backbone's features.
    """

    def __init__(self, *, config: Any, backbone: BackboneInfo) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    @abstractmethod
    def request(self) -> FeatureRequest:
        """Return the features that the matcher needs and the size of the encoder's input."""

    @abstractmethod
    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Any:
        """Embed annotated images; called once for a support set and any number of queries.

        Args:
            features: float (B, K, C, h, w) tensors by requested layer.
            masks: uint8 (B, K, H, W) of 0, 1 and 255 (ignore), at the encoder's input size.

        Returns:
            Any object that `segment` accepts.
        """

    @abstractmethod
    def segment(self, query: Mapping[str, Tensor], support: Any) -> Tensor:
        """Segment B queries, each with its own support.

        Args:
            query: float (B, C, h, w) tensors by requested layer.
            support: result of `embed_support` for the same B episodes.

        Returns:
            Float (B, h', w') logits over the whole encoder input; above 0 is foreground. A network
            with two output channels returns ``logits[:, 1] - logits[:, 0]``.
        """

    # An image can be part of many episodes. A matcher that overrides these four methods processes
    # each image once; otherwise only the features of an image are cached.

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Any:
        """Process one annotated image by itself; called once for each image and class.

        Args:
            features: float (1, C, h, w) tensors by requested layer.
            mask: uint8 (1, H, W), as in `embed_support`.

        Returns:
            Any object that `join_supports` accepts: tensors, also in attrs classes, mappings, lists
            or tuples, whose size counts against the memory budget. By default, the arguments.
        """
        return PreparedSupport(features, mask)

    def join_supports(self, prepared: Sequence[Sequence[Any]]) -> Any:
        """Combine prepared images into the supports of B episodes.

        Args:
            prepared: B lists of K results of `prepare_support`.

        Returns:
            The result of `embed_support` for the same images.
        """
        stacked = {
            layer: torch.stack([torch.cat([one.features[layer] for one in k]) for k in prepared])
            for layer in prepared[0][0].features
        }
        masks = torch.stack([torch.cat([one.mask for one in k]) for k in prepared])
        return self.embed_support(stacked, masks)

    def prepare_query(self, features: Mapping[str, Tensor]) -> Any:
        """Compute the support-independent part of a query; called once for each image.

        Args:
            features: float (1, C, h, w) tensors by requested layer.

        Returns:
            Any object that `segment_prepared` accepts, as of `prepare_support`. By default, the
            features.
        """
        return features

    def segment_prepared(self, queries: Sequence[Any], support: Any) -> Tensor:
        """Segment B prepared queries; returns the logits of `segment`.

        Args:
            queries: B results of `prepare_query`.
            support: result of `join_supports` for the same B episodes.
        """
        return self.segment(together(queries), support)

    def maps(self, query: Mapping[str, Tensor], support: Any) -> Mapping[str, Tensor]:
        """Return maps to draw over the query in panels: correlation, attention or priors.

        Args:
            query: as in `segment`.
            support: as in `segment`.

        Returns:
            Float (B, h, w) maps by caption, over the whole encoder input and on any scale; none by
            default.
        """
        del query, support
        return {}


def config_of(matcher: Matcher) -> dict[str, Any]:
    """Return all options of a matcher, as JSON values."""
    config: dict[str, Any] = {} if matcher.config is None else cattrs.unstructure(matcher.config)
    return config
