"""Inference with a matcher and its backbone: from images and masks to logits."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fssbench.backbones.backbone import Backbone, WeightsInfo
from fssbench.data.geometry import Geometry
from fssbench.errors import FssbenchError
from fssbench.inference.computing import Restorer, computing
from fssbench.matchers.matcher import Matcher, as_batch, as_support
from fssbench.runtime.device import Precision

Features = Mapping[str, Tensor]


class Pipeline:
    """Computation of logits from images, shared by evaluation and prediction.

    Args:
        matcher: matcher to run.
        backbone: its encoder.
        device: device of both.
        precision: ``bf16`` runs both under autocast; logits are float32 either way. ``fp32`` is
            full float32 on a GPU too, not TF32.
        half: True if features are rounded to float16, which takes half the memory of float32.
        encode_batch: images encoded at once. None is 1 on a CPU, so that an image's features do not
            depend on its neighbours in a batch, and 16 on a GPU.

    Raises:
        FssbenchError: the backbone does not support the requested size or layers.
    """

    def __init__(
        self,
        matcher: Matcher,
        backbone: Backbone,
        *,
        device: torch.device,
        precision: Precision = "fp32",
        half: bool = False,
        encode_batch: int | None = None,
    ) -> None:
        self.matcher = matcher.to(device).eval()
        self.backbone = backbone.to(device).eval()
        self.device = device
        self.precision = precision
        self.half = half
        self.request = matcher.request()
        self.geometry = Geometry(self.request.size, self.request.resize)
        self.encode_batch = encode_batch or (1 if device.type == "cpu" else 16)
        self.request.check(backbone.info)
        self._restore = Restorer(self.matcher) if "gradients" in self.matcher.uses else None

    @property
    def weights(self) -> WeightsInfo:
        """Origin of the backbone's weights."""
        return self.backbone.weights

    @property
    def frozen(self) -> Sequence[nn.Module]:
        """The frozen modules beside the matcher."""
        return (self.backbone,)

    def encode(self, images: Tensor, keep: Sequence[Tensor | None] | None = None) -> list[Features]:
        """Return the features of each image.

        Args:
            images: uint8, or float in [0, 1]; (N, 3, S, S) with S the request's size.
            keep: None or a uint8 (S, S) mask for each image: where the mask is not 1, the image is
                set to the encoder's mean.

        Returns:
            The requested layers of each image, (C, h, w), in separate memory.
        """
        with self._computing():
            return self._encoded(images, keep)

    def _encoded(self, images: Tensor, keep: Sequence[Tensor | None] | None) -> list[Features]:
        encoded: list[Features] = []
        for start in range(0, len(images), self.encode_batch):
            batch = images[start : start + self.encode_batch].to(self.device, non_blocking=True)
            if not batch.is_floating_point():
                batch = batch.float() / 255
            mean = self.backbone.mean.view(3, 1, 1)
            for position, mask in enumerate(
                keep[start : start + self.encode_batch] if keep else ()
            ):
                if mask is not None:
                    hidden = mask.to(self.device, non_blocking=True) != 1
                    batch[position] = torch.where(hidden, mean, batch[position])
            filled = len(batch)
            if self.encode_batch > filled:  # one shape for every batch
                rest = batch[-1:].expand(self.encode_batch - filled, -1, -1, -1)
                batch = torch.cat([batch, rest])
            layers = self.backbone(batch, self.request.layers)
            encoded += [
                {name: self._copied(name, maps[i]) for name, maps in layers.items()}
                for i in range(filled)
            ]
        return encoded

    def _copied(self, name: str, maps: Tensor) -> Tensor:
        """Copy or round features: a view would hold the memory of the whole batch."""
        if not self.half or maps.dtype != torch.float32:
            return maps.clone()
        rounded = maps.half()
        if not torch.isfinite(rounded).all():
            raise FssbenchError(
                f"layer {name!r} of backbone {self.backbone.info.name} has values that float16 "
                "cannot hold; evaluate without --cache-half"
            )
        return rounded

    def prepare_support(self, features: Features, mask: Tensor) -> Any:
        """Prepare one support image from its features and its mask, uint8 (S, S)."""
        with self._computing():
            own = mask.to(self.device, non_blocking=True, copy=True)[None]
            return _only(self.matcher.prepare_support(self._single(features), own), "support")

    def embed_support(self, prepared: Sequence[Sequence[Any]]) -> Any:
        """Embed B support sets of K prepared support images."""
        with self._computing():
            return self.matcher.embed_support(as_support(prepared))

    def prepare_query(self, features: Features) -> Any:
        """Compute the support-independent part of a query."""
        with self._computing():
            return _only(self.matcher.prepare_query(self._single(features)), "query")

    def segment(self, queries: Sequence[Any], *supports: Any) -> Tensor:
        """Return logits of B prepared queries, float32 (B, h', w'); for N ways (B, N, h', w').

        The caller must check with `finite` that they are finite: a check here would synchronize
        the GPU at every call.

        Args:
            queries: B prepared queries.
            supports: embedded supports of each way.

        Raises:
            FssbenchError: the logits have a wrong shape.
        """
        count = len(queries)
        if len(supports) == 1:
            return self._logits("segment", queries, supports, count)
        if type(self.matcher).segment_ways is not Matcher.segment_ways:
            return self._logits("segment_ways", queries, (supports,), count, len(supports))
        # One by one, so that a way's gradient steps do not change the next way.
        return torch.stack([self._logits("segment", queries, (way,), count) for way in supports], 1)

    def base_logits(self, queries: Sequence[Any], classes: int) -> Tensor:
        """Return logits of B prepared queries for C base classes, float32 (B, C, h', w').

        Raises:
            FssbenchError: the logits have a wrong shape, or the matcher knows no base classes.
        """
        return self._logits("base_logits", queries, (), len(queries), classes)

    def _logits(
        self, method: str, queries: Sequence[Any], supports: Sequence[Any], *wanted: int
    ) -> Tensor:
        with self._computing(segmenting=True):
            logits: Tensor = getattr(self.matcher, method)(as_batch(queries), *supports).detach()
        if self._restore is not None:
            self._restore()
        if logits.shape[:-2] != wanted:
            raise FssbenchError(
                f"{method} gave logits of shape {tuple(logits.shape)}; expected "
                f"({', '.join(map(str, wanted))}, h, w), foreground minus background"
            )
        return logits.float()

    def maps(self, queries: Sequence[Any], support: Any) -> dict[str, Tensor]:
        """Return the maps of B prepared queries: float32 (B, h, w) by caption."""
        with self._computing():
            found = self.matcher.maps(as_batch(queries), support)
        return {caption: each.float() for caption, each in found.items()}

    def support_of(self, supports: Sequence[Features], masks: Tensor) -> Any:
        """Embed one support set: K supports with masks uint8 (K, S, S)."""
        return self.embed_support([list(map(self.prepare_support, supports, masks))])

    def logits_of(self, queries: Sequence[Features], *supports: Any) -> Tensor:
        """Prepare and segment B queries: float32 (B, h', w'); for N ways (B, N, h', w').

        Raises:
            FssbenchError: the logits have a wrong shape, or are not finite.
        """
        logits = self.segment(list(map(self.prepare_query, queries)), *supports)
        if not finite(logits).all():
            raise FssbenchError(NOT_FINITE)
        return logits

    def _computing(self, segmenting: bool = False) -> contextlib.AbstractContextManager[None]:
        gradients = "gradients" in self.matcher.uses
        return computing(self.device, self.precision, gradients=segmenting if gradients else None)

    def _single(self, features: Features) -> dict[str, Tensor]:
        """Return features of one image as a batch of one, rounded ones as float32."""
        batch = {name: maps[None] for name, maps in features.items()}
        return {name: maps.float() for name, maps in batch.items()} if self.half else batch


NOT_FINITE = "segment gave logits that are NaN or infinite"


def finite(logits: Tensor) -> Tensor:
    """Return for each image whether all its logits (B, h, w) are finite: bool (B,), same device."""
    return torch.isfinite(logits).flatten(1).all(1)


def _only(prepared: Any, kind: str) -> Any:
    if not isinstance(prepared, list | tuple) or len(prepared) != 1:
        raise FssbenchError(
            f"prepare_{kind} gave {type(prepared).__name__} for one image; expected a list of one "
            "value for each image (fssbench.nn.separate divides a batch)"
        )
    return prepared[0]
