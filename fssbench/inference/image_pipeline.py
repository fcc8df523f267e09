"""Inference with an image matcher and its encoders: from whole images to logits."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fssbench.backbones.backbone import WeightsInfo
from fssbench.backbones.encoder import Cache, Encoder
from fssbench.errors import FssbenchError
from fssbench.inference.computing import Restorer, computing
from fssbench.matchers.image_matcher import EpisodeImages, ImageMatcher
from fssbench.runtime.device import Precision


class ImagePipeline:
    """Computation of logits from whole images, shared by evaluation and prediction.

    Args:
        matcher: matcher to run.
        device: device of matcher and encoders.
        precision: ``bf16`` runs both under autocast; logits are float32 either way.

    Attributes:
        matcher: the matcher.
        encoders: its encoders by role.
        device: device of both.
        precision: precision of both.
    """

    def __init__(
        self, matcher: ImageMatcher, *, device: torch.device, precision: Precision = "fp32"
    ) -> None:
        self.matcher = matcher.to(device).eval()
        self.encoders: Mapping[str, Encoder] = matcher.encoders
        for module in self.frozen:
            module.to(device).eval()
        self.device = device
        self.precision = precision
        self._gradients = "gradients" in matcher.uses
        self._restore = Restorer(self.matcher) if self._gradients else None
        self._versions = self._encoder_versions()

    @property
    def weights(self) -> WeightsInfo:
        """Origin of all encoders' weights: ``random`` if those of any are, else ``encoders``."""
        sources = {encoder.weights.source for encoder in self.encoders.values()}
        return WeightsInfo(source="random" if "random" in sources else "encoders")

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """The frozen modules beside the matcher."""
        return [encoder.module for encoder in self.encoders.values()]

    def use(self, cache: Cache) -> None:
        """Set the cache of all encoders."""
        for encoder in self.encoders.values():
            encoder.cache = cache

    def predict(self, episodes: Sequence[EpisodeImages]) -> list[Tensor]:
        """Return the logits of B episodes, float32 (H, W) at the sizes of their queries.

        Raises:
            FssbenchError: the matcher returned something else.
        """
        with self._computing():
            if self._restore is None:
                found = list(self.matcher.predict_batch(episodes))
            else:
                found = []
                for episode in episodes:
                    found += self.matcher.predict_batch([episode])
                    self._restore()
        self._check_encoders()
        if len(found) != len(episodes):
            raise FssbenchError(
                f"predict_batch gave {len(found)} results for {len(episodes)} episodes"
            )
        return [
            self._checked("predict", logits, episode)
            for logits, episode in zip(found, episodes, strict=True)
        ]

    def predict_ways(self, ways: Sequence[EpisodeImages]) -> Tensor:
        """Return the logits of an episode of N ways, float32 (N, H, W) at the size of its query.

        Args:
            ways: images of each way.

        Raises:
            FssbenchError: the matcher returned something else.
        """
        if type(self.matcher).predict_ways is ImageMatcher.predict_ways:
            return torch.stack(self.predict(ways))
        with self._computing():
            found = self.matcher.predict_ways(ways)
        self._check_encoders()
        if self._restore is not None:
            self._restore()
        return self._checked("predict_ways", found, ways[0], len(ways))

    def _encoder_versions(self) -> dict[str, list[tuple[int, int]]]:
        return {
            role: [(id(t), t._version) for t in (*e.module.parameters(), *e.module.buffers())]
            for role, e in self.encoders.items()
        }

    def _check_encoders(self) -> None:
        """Raise an `FssbenchError` if the matcher wrote to an encoder."""
        for role, versions in self._encoder_versions().items():
            if versions != self._versions.get(role):
                raise FssbenchError(
                    f"{type(self.matcher).__name__}: the encoder {role} was changed at test time; "
                    "its weights are those that the record names: change a copy of its layers, as "
                    "parameters of the matcher"
                )

    def _checked(self, method: str, logits: object, episode: EpisodeImages, *ways: int) -> Tensor:
        size = tuple(episode.query.shape[-2:])
        if not isinstance(logits, Tensor) or logits.shape != (*ways, *size):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            of = f"for {ways[0]} ways of" if ways else "for"
            raise FssbenchError(
                f"{method} gave {shape} {of} a query of {size[0]} x {size[1]} pixels; "
                "expected float logits of that size, foreground minus background"
            )
        if not logits.is_floating_point():
            raise FssbenchError(
                f"{method} gave {logits.dtype}; expected float logits, above 0 for foreground "
                "(mask.float() - 0.5)"
            )
        return logits.detach().to(self.device, torch.float32)

    def maps(self, episode: EpisodeImages) -> dict[str, Tensor]:
        """Return the maps of an episode, float32 (h, w) by caption."""
        with self._computing():
            found = self.matcher.maps(episode)
        if self._restore is not None:
            self._restore()
        return {caption: each.detach().float() for caption, each in found.items()}

    def _computing(self) -> contextlib.AbstractContextManager[None]:
        return computing(self.device, self.precision, gradients=True if self._gradients else None)
