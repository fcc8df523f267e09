"""The interface of methods that take whole images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from fssbench.backbones.encoder import Encoder
from fssbench.specs import SupportKind, Use


@attrs.frozen(kw_only=True, eq=False)
class EpisodeImages:
    """The images of an episode at their own sizes, on the device of the evaluation.

    Attributes:
        query: image to segment, uint8 (3, H, W).
        images: K support images, uint8 (3, H_k, W_k).
        masks: their masks, uint8 (H_k, W_k) of 0, 1 and 255 (ignore).
        support_kind: annotation that the masks show: the whole ``mask``, a ``box``, ``point`` or
            ``scribble`` annotation, which promptable methods may use as such, or ``no-mask``: the
            whole image.
        class_name: name of the class, for methods whose spec declares ``class_names`` in ``uses``;
            otherwise None.
        generator: generator on the CPU, seeded by the episode, for methods that draw numbers.
    """

    query: Tensor
    images: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    support_kind: SupportKind = "mask"
    class_name: str | None = None
    generator: torch.Generator = attrs.field(factory=torch.Generator)


class ImageMatcher(nn.Module, ABC):
    """A few-shot segmentation method that maps images and masks to logits by itself.

    It is the interface for everything that does not work on the features of one frozen backbone:
    several encoders, promptable models, stitched images, texts, gradients at test time. The
    encoders are declared in ``MatcherSpec.encoders``, built by the evaluation, frozen, and no
    submodules; parameters of the module itself come from a checkpoint.

    Subclasses take the keyword arguments ``config`` and ``encoders``.

    Args:
        config: options object of the method's spec, or None.
        encoders: encoders by role.
    """

    uses: tuple[Use, ...] = ()
    """Input beyond images and masks, from ``MatcherSpec.uses``."""

    def __init__(self, *, config: Any, encoders: Mapping[str, Encoder]) -> None:
        super().__init__()
        self.config = config
        self.encoders = encoders

    @abstractmethod
    def predict(self, episode: EpisodeImages) -> Tensor:
        """Segment the query of an episode.

        It runs in inference mode; if the method's spec declares ``gradients`` in ``uses``, with
        gradients enabled. Parameters and buffers are restored afterwards, so that no episode
        depends on another.

        Returns:
            Float (H, W) logits at the query's own size; above 0 is foreground. A method that gives
            a mask returns ``mask - 0.5``.
        """

    def predict_batch(self, episodes: Sequence[EpisodeImages]) -> Sequence[Tensor]:
        """Segment the queries of B episodes; by default one after the other.

        A method that runs its networks on batches overrides it; ``--batch-size`` gives B.

        Returns:
            B results of `predict`.
        """
        return [self.predict(episode) for episode in episodes]

    def predict_ways(self, ways: Sequence[EpisodeImages]) -> Tensor:
        """Segment the query of an episode of N ways: N classes at once.

        A pixel belongs to the way with the largest logit, and to the background if none is above 0
        or two are equal. By default the ways are segmented by `predict_batch`. A method that
        compares the classes overrides it.

        Args:
            ways: images of each way, all with the same query.

        Returns:
            Float (N, H, W) logits at the query's own size.
        """
        return torch.stack(list(self.predict_batch(ways)))

    def maps(self, episode: EpisodeImages) -> Mapping[str, Tensor]:
        """Return maps to draw over the query in panels; none by default.

        Returns:
            Float (h, w) maps by caption, each over the whole query and on any scale.
        """
        del episode
        return {}
