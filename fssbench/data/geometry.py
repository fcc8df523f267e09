"""Resizing of images and masks to the encoder's square, and of logits to the original size."""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench.data.dataset import IGNORE


@attrs.frozen
class Geometry:
    """Resizing to a square of ``size`` x ``size`` pixels.

    Attributes:
        size: side of the square in pixels.
        resize: ``squash`` ignores the aspect ratio; ``letterbox`` preserves it and pads at the
            bottom or right, images with 0 (black) and masks with 255.
    """

    size: int
    resize: Literal["squash", "letterbox"] = "squash"

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) of a resized image inside the square."""
        if self.resize == "squash":
            return self.size, self.size
        longest = max(height, width)
        return max(1, round(height * self.size / longest)), max(
            1, round(width * self.size / longest)
        )

    def image(self, image: Tensor) -> Tensor:
        """Resize an image (3, H, W), uint8 or float, to (3, size, size) of the same dtype.

        Bilinear with antialiasing, as in Pillow; an image of the right size is returned unchanged.
        """
        inside = self.content(*image.shape[-2:])
        if image.shape[-2:] != inside:
            image = functional.interpolate(
                image[None], inside, mode="bilinear", align_corners=False, antialias=True
            )[0]
        return self._pad(image, 0)

    def mask(self, mask: Tensor) -> Tensor:
        """Resize a mask, uint8 (H, W), to (size, size) by nearest neighbour."""
        inside = self.content(*mask.shape)
        if mask.shape != inside:
            mask = functional.interpolate(mask[None, None], inside, mode="nearest")[0, 0]
        return self._pad(mask, IGNORE)

    def restore(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Resize float logits (…, h', w') of the square to the (height, width) of the image.

        Bilinear with ``align_corners=True``, as in the code of published methods.
        """
        inside = self.content(height, width)
        if inside != (self.size, self.size):
            logits = _bilinear(logits, self.size, self.size)[..., : inside[0], : inside[1]]
        return _bilinear(logits, height, width)

    def _pad(self, plane: Tensor, value: int) -> Tensor:
        height, width = plane.shape[-2:]
        if (height, width) == (self.size, self.size):
            return plane
        return functional.pad(plane, (0, self.size - width, 0, self.size - height), value=value)


def stack_padded(planes: list[Tensor], value: int) -> Tensor:
    """Stack planes (H_i, W_i) as (B, max H, max W), padded at the bottom and right."""
    height = max(plane.shape[0] for plane in planes)
    width = max(plane.shape[1] for plane in planes)
    return torch.stack(
        [
            functional.pad(p, (0, width - p.shape[1], 0, height - p.shape[0]), value=value)
            for p in planes
        ]
    )


def _bilinear(plane: Tensor, height: int, width: int) -> Tensor:
    if plane.shape[-2:] == (height, width):
        return plane
    return functional.interpolate(
        plane.reshape(1, -1, *plane.shape[-2:]), (height, width), mode="bilinear",
        align_corners=True,
    ).view(*plane.shape[:-2], height, width)  # fmt: skip
