"""Prediction on single images, computed as in an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.errors import FssbenchError
from fssbench.inference.pipeline import Pipeline
from fssbench.model import model_source
from fssbench.runtime.device import Precision, choose_device


@attrs.frozen(eq=False)
class Prediction:
    """The segmentation of a query.

    Attributes:
        logits: float32 (h', w') over the encoder's input; above 0 is foreground.
        mask: bool (H, W), at the size of the image.
    """

    logits: Tensor
    mask: Tensor


class Predictor:
    """A matcher that segments images after it was given K annotated images.

    Args:
        matcher: name of the matcher; "" for the checkpoint's, or ``prototype``.
        backbone: name of the encoder; "" for the checkpoint's, or ``tiny-resnet``.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        checkpoint: file of trained weights of the matcher, or None.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
        options: options of the matcher, instead of those that it was trained with.

    Attributes:
        matcher: registered name of the matcher.
        pipeline: matcher and encoder.

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
        device: str = "auto",
        precision: Precision = "fp32",
        **options: Any,
    ) -> None:
        path = None if checkpoint is None else Path(checkpoint)
        source = model_source(matcher, backbone, weights, checkpoint=path, options=options)
        place = choose_device(device)
        self.matcher = source.matcher
        self.pipeline = Pipeline(*source.load(), device=place, precision=precision, encode_batch=1)
        self._support: Any = None

    def set_support(
        self, images: Tensor | Sequence[Tensor], masks: Tensor | Sequence[Tensor]
    ) -> None:
        """Set the annotated images for the following predictions.

        Args:
            images: (K, 3, H, W), or K images (3, H, W) of any sizes; float in [0, 1] or uint8.
            masks: uint8 (K, H, W), or K masks (H, W), each of the size of its image; 0, 1, and 255
                for ignored pixels.

        Raises:
            FssbenchError: wrong shapes or values, no foreground pixel, or foreground too small for
                the encoder's input size.
        """
        _check_shapes(images, masks)
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

        Args:
            image: (3, H, W), float in [0, 1] or uint8; any size.

        Raises:
            FssbenchError: no support was set, or the image has another shape or range.
        """
        if self._support is None:
            raise FssbenchError("call set_support(images, masks) before predict(image)")
        if image.ndim != 3 or image.shape[0] != 3:
            raise FssbenchError(f"the image has shape {tuple(image.shape)}; expected (3, H, W)")
        geometry = self.pipeline.geometry
        query = self.pipeline.encode(geometry.image(_checked(image))[None])
        logits = self.pipeline.logits_of(query, self._support)[0]
        mask = geometry.restore(logits, *image.shape[-2:]) > 0
        return Prediction(logits=logits.cpu(), mask=mask.cpu())


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
