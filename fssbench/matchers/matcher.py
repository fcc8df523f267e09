"""The interface of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from fssbench.backbones.backbone import BackboneInfo
from fssbench.errors import FssbenchError
from fssbench.matchers.image_matcher import ImageMatcher
from fssbench.nn import together
from fssbench.options import to_record
from fssbench.specs import Use


@attrs.frozen(kw_only=True)
class FeatureRequest:
    """The features that a matcher needs, and the geometry of the encoder's input.

    Attributes:
        layers: names of backbone layers.
        size: side of the square encoder input, in pixels.
        resize: resizing of other shapes to that square: ``squash`` (each side separately, as in
            HSNet, DCAMA and HDMNet) or ``letterbox`` (same aspect ratio, padded with black below or
            to the right, where the mask is 255).
        mask_support: True if the background of support images is set to the encoder's mean before
            encoding (as in HDMNet), which makes a support's features depend on its class.
    """

    layers: tuple[str, ...]
    size: int
    resize: Literal["squash", "letterbox"] = "squash"
    mask_support: bool = False

    def check(self, info: BackboneInfo) -> None:
        """Raise an `FssbenchError` if a backbone lacks a layer or does not take the size."""
        for layer in self.layers:
            info.layer(layer)
        if self.size < 1 or self.size % info.multiple:
            raise FssbenchError(
                f"backbone {info.name} takes images whose side is a multiple of {info.multiple}, "
                f"not {self.size}; set the matcher's size option"
            )


@attrs.frozen(eq=False)
class SupportSet:
    """Annotated images of a batch of episodes.

    Attributes:
        features: float (B, K, C, h, w) tensors by requested layer.
        masks: uint8 (B, K, H, W) of 0, 1 and 255 (ignore), at the encoder's input size.
    """

    features: Mapping[str, Tensor]
    masks: Tensor


class Matcher(nn.Module, ABC):
    """A few-shot segmentation method on top of a frozen backbone.

    A matcher maps features to logits and holds no parameter of the backbone. Evaluation, training
    and prediction call the same methods: `prepare_support` and `prepare_query` once for each image,
    then `embed_support` and `segment` for the episodes. Most methods write `request`,
    `embed_support` and `segment`; one that overrides a ``prepare`` method processes an image once
    for all its episodes.

    Subclasses take the keyword arguments ``config`` and ``backbone``.

    Args:
        config: options object of the method's spec, or None.
        backbone: names and shapes of the backbone's features.
    """

    uses: tuple[Use, ...] = ()
    """Input beyond features and masks, from ``MatcherSpec.uses``."""

    def __init__(self, *, config: Any, backbone: BackboneInfo) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone

    @abstractmethod
    def request(self) -> FeatureRequest:
        """Return the features that the matcher needs and the size of the encoder's input."""

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Any]:
        """Process N annotated images, each by itself; called once for each image and class.

        Args:
            features: float (N, C, h, w) tensors by requested layer.
            masks: uint8 (N, H, W) of 0, 1 and 255 (ignore), at the encoder's input size.

        Returns:
            N values that `embed_support` accepts: tensors, also in attrs classes, mappings, lists
            or tuples, whose size counts against the memory budget. By default `SupportSet`s of one
            image each.
        """
        return [
            SupportSet({name: maps[n : n + 1, None] for name, maps in features.items()}, mask)
            for n, mask in enumerate(masks[:, None, None])
        ]

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Any]:
        """Compute the support-independent part of N queries; called once for each image.

        Args:
            features: float (N, C, h, w) tensors by requested layer.

        Returns:
            N values that `segment` accepts, as of `prepare_support`. By default the features of
            each query, float (1, C, h, w) by layer.
        """
        count = len(next(iter(features.values())))
        return [{name: maps[n : n + 1] for name, maps in features.items()} for n in range(count)]

    @abstractmethod
    def embed_support(self, support: Any) -> Any:
        """Embed the support sets of B episodes; called once for a set and any number of queries.

        Args:
            support: one `SupportSet` of all B episodes; for a matcher with a `prepare_support` of
                its own, B lists of the K values that it returned.

        Returns:
            Any object that `segment` accepts.
        """

    @abstractmethod
    def segment(self, query: Any, support: Any) -> Tensor:
        """Segment B queries, each with its own support.

        It runs in inference mode; if the method's spec declares ``gradients`` in ``uses``, with
        gradients enabled. Parameters and buffers are restored afterwards, so that no episode
        depends on another.

        Args:
            query: float (B, C, h, w) tensors by requested layer; for a matcher with a
                `prepare_query` of its own, a list of the B values that it returned.
            support: result of `embed_support` for the same B episodes.

        Returns:
            Float (B, h', w') logits over the whole encoder input; above 0 is foreground. A network
            with two output channels returns ``logits[:, 1] - logits[:, 0]``.
        """

    def segment_ways(self, query: Any, supports: Sequence[Any]) -> Tensor:
        """Segment B queries in N ways: N classes at once.

        A pixel belongs to the way with the largest logit, and to the background if none is above 0
        or two are equal. By default the ways are segmented one after the other. A method that
        compares the classes overrides it.

        Args:
            query: as in `segment`.
            supports: results of `embed_support` for the same B episodes, one for each way.

        Returns:
            Float (B, N, h', w') logits over the whole encoder input.
        """
        return torch.stack([self.segment(query, support) for support in supports], 1)

    def base_logits(self, query: Any) -> Tensor:
        """Segment B queries into the base classes of the fold that the matcher was trained on.

        Only a method that classifies base classes overrides it; protocols with base classes refuse
        others.

        Args:
            query: as in `segment`.

        Returns:
            Float (B, C, h', w') logits of the C base classes, ascending by class id, over the whole
            encoder input; each minus that of background, to be compared with those of `segment`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not classify base classes")

    def maps(self, query: Any, support: Any) -> Mapping[str, Tensor]:
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

    def forward(
        self, query: Mapping[str, Tensor], support: Mapping[str, Tensor], masks: Tensor
    ) -> Tensor:
        """Return the logits of a batch of episodes: all steps in a row, as in training.

        Args:
            query: float (B, C, h, w) tensors by requested layer.
            support: float (B, K, C, h, w) tensors by requested layer.
            masks: uint8 (B, K, H, W).
        """
        embedded = embed_episodes(self, support, masks)
        return self.segment(as_batch(self.prepare_query(query)), embedded)


def embed_episodes(matcher: Matcher, support: Mapping[str, Tensor], masks: Tensor) -> Any:
    """Prepare and embed the supports of a batch of episodes.

    Args:
        matcher: matcher that embeds them.
        support: float (B, K, C, h, w) tensors by requested layer.
        masks: uint8 (B, K, H, W).

    Returns:
        The result of `Matcher.embed_support`.
    """
    batch, shots = masks.shape[:2]
    flat = {name: maps.flatten(0, 1) for name, maps in support.items()}
    prepared = matcher.prepare_support(flat, masks.flatten(0, 1))
    sets = [prepared[shots * n : shots * (n + 1)] for n in range(batch)]
    return matcher.embed_support(as_support(sets))


def as_support(prepared: Sequence[Sequence[Any]]) -> Any:
    """Return B lists of K prepared supports in the form that `Matcher.embed_support` takes.

    Supports of the default `Matcher.prepare_support` are stacked to one `SupportSet`; others are
    returned as they are.
    """
    if not isinstance(prepared[0][0], SupportSet):
        return prepared
    return SupportSet(
        {
            name: torch.stack([torch.cat([one.features[name][0] for one in k]) for k in prepared])
            for name in prepared[0][0].features
        },
        torch.stack([torch.cat([one.masks[0] for one in k]) for k in prepared]),
    )


def as_batch(queries: Sequence[Any]) -> Any:
    """Return B prepared queries in the form that `Matcher.segment` takes.

    Queries of the default `Matcher.prepare_query` are joined to one mapping of layers; others are
    returned as they are.
    """
    return together(queries) if isinstance(queries[0], Mapping) else queries


def config_of(matcher: Matcher | ImageMatcher) -> dict[str, Any]:
    """Return the options of a matcher for records and headers; see `to_record`."""
    return to_record(matcher.config)
