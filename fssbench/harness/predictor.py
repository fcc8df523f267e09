"""A person's own images through the same path as an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import attrs
import torch
from torch import Tensor

from fssbench import build
from fssbench.errors import FssbenchError
from fssbench.harness.pipeline import Pipeline, Precision, choose_device
from fssbench.matchers.checkpoint import read_checkpoint


@attrs.frozen(eq=False)
class Prediction:
    """What a query was segmented into.

    Attributes:
        logits: float32 (h', w') over the encoder's input; above 0 is foreground.
        mask: bool (H, W), at the size of the image.
    """

    logits: Tensor
    mask: Tensor


class Predictor:
    """Segments images after seeing K annotated ones.

    Args:
        matcher: name of the method.
        backbone: name of the encoder.
        weights: of the encoder: ``pretrained``, ``random`` or a file.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
        options: the matcher's own.

    Raises:
        FssbenchError: unknown names or options, missing weights.
    """

    def __init__(
        self,
        matcher: str = "prototype",
        backbone: str = "tiny-resnet",
        weights: str | Path = "pretrained",
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        **options: Any,
    ) -> None:
        encoder = build.backbone(backbone, weights)
        self.pipeline = Pipeline(
            build.matcher(matcher, encoder, **options),
            encoder,
            device=choose_device(device),
            precision=precision,
            encode_batch=1,
        )
        self._support: Any = None

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, weights: str | Path = "pretrained", *, device: str = "auto"
    ) -> Self:
        """A trained matcher, with options and backbone as its checkpoint's header says.

        Args:
            path: the checkpoint.
            weights: of the encoder; not to be given for a checkpoint that brings them.
            device: as for the class.

        Raises:
            FssbenchError: the file cannot be read or does not fit.
        """
        checkpoint = read_checkpoint(Path(path))
        header = checkpoint.header
        weights = checkpoint.backbone_weights(str(weights))
        made = cls(
            header["matcher"], header["backbone"], weights, device=device, **header["config"]
        )
        checkpoint.load_into(made.pipeline.matcher)
        return made

    def set_support(self, images: Tensor, masks: Tensor) -> None:
        """Tell what to look for; it stays until it is told anew.

        Args:
            images: (K, 3, H, W), float in [0, 1] or uint8.
            masks: uint8 (K, H, W) of 0 and 1; 255 marks pixels to leave out.

        Raises:
            FssbenchError: shapes or values are others, or no pixel is marked.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not len(images):
            raise FssbenchError(f"images have shape {tuple(images.shape)}; expected (K, 3, H, W)")
        if masks.shape != (len(images), *images.shape[-2:]):
            raise FssbenchError(
                f"masks have shape {tuple(masks.shape)}; the images need "
                f"{(len(images), *images.shape[-2:])}"
            )
        masks = masks.to(torch.uint8)
        if bool(((masks > 1) & (masks != 255)).any()):
            raise FssbenchError("masks hold values other than 0, 1 and 255 (ignore)")
        if not bool((masks == 1).any()):
            raise FssbenchError("no pixel of the masks is 1: there is nothing to look for")
        geometry = self.pipeline.geometry
        squares = torch.stack([geometry.mask(mask) for mask in masks])
        pixels = torch.stack([geometry.image(_checked(image)) for image in images])
        keep = list(squares) if self.pipeline.request.mask_support else None
        encoded = self.pipeline.encode(pixels, keep)
        self._support = self.pipeline.embed_support([encoded], squares[None])

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
        logits = self.pipeline.segment(query, self._support)[0]
        mask = geometry.restore(logits, *image.shape[-2:]) > 0
        return Prediction(logits=logits.cpu(), mask=mask.cpu())


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
