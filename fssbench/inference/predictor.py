"""Prediction on single images, computed as in an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.errors import FssbenchError
from fssbench.inference.encoder_cache import EncoderCache
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.load_pipeline import load_pipeline
from fssbench.inference.pipeline import NOT_FINITE
from fssbench.matchers.image_matcher import EpisodeImages
from fssbench.model import model_source
from fssbench.runtime.device import Precision, choose_device
from fssbench.runtime.memory import default_budget


@attrs.frozen(eq=False)
class Prediction:
    """The segmentation of a query.

    Attributes:
        logits: float32 (h', w') over the encoder's input, of an image matcher (H, W) over the
            image; above 0 is foreground.
        mask: bool (H, W), at the size of the image.
    """

    logits: Tensor
    mask: Tensor


class Predictor:
    """A matcher that segments images after it was given K annotated images.

    Args:
        matcher: name of the matcher; "" for the checkpoint's, or ``prototype``.
        backbone: name of the encoder; "" for the checkpoint's, or the matcher's default.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        checkpoint: file of trained weights of the matcher, or its address ``hf://…`` on the hub,
            or None.
        encoders: names of encoders of an image matcher by role, instead of its defaults.
        encoder_weights: their weights by role, instead of `weights`.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
        options: options of the matcher, instead of those that it was trained with.

    Attributes:
        matcher: registered name of the matcher.
        backbone: registered name of the encoder, or of several with ``+``.
        pipeline: matcher and encoders.

    Raises:
        FssbenchError: unknown names or options, missing weights, or an unreadable checkpoint.
    """

    def __init__(
        self,
        matcher: str = "",
        backbone: str = "",
        weights: str | Path = "pretrained",
        *,
        checkpoint: str | Path | None = None,
        encoders: Mapping[str, str] | None = None,
        encoder_weights: Mapping[str, str] | None = None,
        device: str = "auto",
        precision: Precision = "fp32",
        **options: Any,
    ) -> None:
        source = model_source(
            matcher,
            backbone,
            weights,
            checkpoint=checkpoint,
            options=options,
            encoders=encoders,
            encoder_weights=encoder_weights,
        )
        self.matcher = source.matcher
        self.backbone = source.backbone
        self.pipeline = load_pipeline(
            source, device=choose_device(device, precision), precision=precision, encode_batch=1
        )
        if isinstance(self.pipeline, ImagePipeline):
            EncoderCache(self.pipeline, default_budget(self.pipeline.device))
        self._support: Any = None

    def set_support(
        self,
        images: Tensor | Sequence[Tensor],
        masks: Tensor | Sequence[Tensor],
        *,
        class_name: str | None = None,
    ) -> None:
        """Set the annotated images for the following predictions.

        Args:
            images: (K, 3, H, W), or K images (3, H, W) of any sizes; float in [0, 1] or uint8.
            masks: uint8 (K, H, W), or K masks (H, W), each of the size of its image; 0, 1, and 255
                for ignored pixels.
            class_name: name of the object, for a matcher that takes one.

        Raises:
            FssbenchError: wrong shapes or values, no foreground pixel, foreground too small for
                the encoder's input size, or a class name that is missing or not taken.
        """
        _check_shapes(images, masks)
        named = "class_names" in self.pipeline.matcher.uses
        if named != bool(class_name):
            raise FssbenchError(
                f"matcher {self.matcher} takes the name of the object: give --class-name TEXT"
                if named
                else f"matcher {self.matcher} takes no class name; leave --class-name out"
            )
        for number, mask in enumerate(masks, 1):
            values = mask.unique().tolist()
            if not set(values) <= {0, 1, IGNORE}:
                shown = ", ".join(f"{value:g}" for value in values[:8])
                raise FssbenchError(
                    f"mask {number} has the values {shown}{', …' * (len(values) > 8)}; write 1 for "
                    "the object, 0 for the rest and 255 for ignored pixels (docs/masks.md)"
                )
        masks = [mask.to(torch.uint8) for mask in masks]
        if not any(bool((mask == 1).any()) for mask in masks):
            raise FssbenchError("no pixel of the masks is 1: there is nothing to look for")
        if isinstance(self.pipeline, ImagePipeline):
            device = self.pipeline.device
            self._support = {
                "images": tuple(_as_uint8(image).to(device) for image in images),
                "masks": tuple(mask.to(device) for mask in masks),
                "class_name": class_name,
            }
            return
        geometry = self.pipeline.geometry
        squares = [geometry.mask(mask) for mask in masks]
        for number, (mask, square) in enumerate(zip(masks, squares, strict=True), 1):
            marked = int((mask == 1).sum())
            if marked and not bool((square == 1).any()):
                raise FssbenchError(
                    f"mask {number} marks {marked} of {mask.numel()} pixels, too few to be seen at "
                    f"the encoder's input of {geometry.size}x{geometry.size}; crop image and mask, "
                    "or set the matcher's size option"
                )
        # One by one: images of a set may differ in dtype, and the pipeline encodes singly anyway.
        encoded = [
            self.pipeline.encode(
                geometry.image(_checked(image))[None],
                [square] if self.pipeline.request.mask_support else None,
            )[0]
            for image, square in zip(images, squares, strict=True)
        ]
        self._support = self.pipeline.support_of(encoded, torch.stack(squares))

    def predict(self, image: Tensor) -> Prediction:
        """Segment an image.

        A method that draws random numbers draws the same ones for every image, since there is no
        episode to seed them.

        Args:
            image: (3, H, W), float in [0, 1] or uint8; any size.

        Raises:
            FssbenchError: no support was set, or the image has another shape or range.
        """
        if self._support is None:
            raise FssbenchError("call set_support(images, masks) before predict(image)")
        if image.ndim != 3 or image.shape[0] != 3:
            raise FssbenchError(f"the image has shape {tuple(image.shape)}; expected (3, H, W)")
        if isinstance(self.pipeline, ImagePipeline):
            query = _as_uint8(image).to(self.pipeline.device)
            generator = torch.Generator().manual_seed(0)
            episode = EpisodeImages(query=query, generator=generator, **self._support)
            (logits,) = self.pipeline.predict([episode])
            if not bool(torch.isfinite(logits).all()):
                raise FssbenchError(NOT_FINITE)
            return Prediction(logits=logits.cpu(), mask=(logits > 0).cpu())
        geometry = self.pipeline.geometry
        encoded = self.pipeline.encode(geometry.image(_checked(image))[None])
        logits = self.pipeline.logits_of(encoded, self._support)[0]
        mask = geometry.restore(logits, *image.shape[-2:]) > 0
        return Prediction(logits=logits.cpu(), mask=mask.cpu())


def _as_uint8(image: Tensor) -> Tensor:
    """Return an image with 8 bits, as images of a dataset have."""
    checked = _checked(image)
    return (
        checked
        if checked.dtype == torch.uint8
        else (checked * 255).round().clamp(0, 255).to(torch.uint8)
    )


def _check_shapes(images: Tensor | Sequence[Tensor], masks: Tensor | Sequence[Tensor]) -> None:
    sizes = [tuple(image.shape) for image in images]
    if not sizes or any(len(size) != 3 or size[0] != 3 for size in sizes):
        raise FssbenchError(f"images have shape {_shape(images)}; expected (K, 3, H, W)")
    needed = [size[1:] for size in sizes]
    if [tuple(mask.shape) for mask in masks] != needed:
        shape = (len(needed), *needed[0]) if isinstance(images, Tensor) else needed
        raise FssbenchError(f"masks have shape {_shape(masks)}; the images need {shape}")


def _shape(planes: Tensor | Sequence[Tensor]) -> object:
    if isinstance(planes, Tensor):
        return tuple(planes.shape)
    return [tuple(plane.shape) for plane in planes]


def _checked(image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise FssbenchError(f"images have dtype {image.dtype}; give floats in [0, 1] or uint8")
    # A tolerance for resized images, whose interpolation may overshoot by rounding.
    if not bool(torch.isfinite(image).all()) or image.min() < -1e-3 or image.max() > 1 + 1e-3:
        raise FssbenchError(
            f"image values run from {image.min():.3g} to {image.max():.3g}; floats must lie in "
            "[0, 1]"
        )
    return image.float()
