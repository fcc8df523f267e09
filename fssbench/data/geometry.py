"""How images of any shape become the encoder's square, and logits find their way back."""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench.data.dataset import IGNORE


@attrs.frozen
class Geometry:
    """Resizing to a square of ``size`` pixels.

    Attributes:
        size: side of the square.
        resize: ``squash`` resizes each side separately; ``letterbox`` preserves the aspect ratio
            and pads below or to the right, images with black, masks with 255.
    """

    size: int
    resize: Literal["squash", "letterbox"] = "squash"

    def content(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that an image of this shape takes up inside the square."""
        if self.resize == "squash":
            return self.size, self.size
        longest = max(height, width)
        return max(1, round(height * self.size / longest)), max(
            1, round(width * self.size / longest)
        )

    def image(self, image: Tensor) -> Tensor:
        """(3, H, W) to (3, size, size), uint8 or float as it comes.

        Bilinear with antialiasing, as Pillow resizes; an image that fits already is left as it is.
        """
        inside = self.content(*image.shape[-2:])
        if image.shape[-2:] != inside:
            image = functional.interpolate(
                image[None], inside, mode="bilinear", align_corners=False, antialias=True
            )[0]
        return self._pad(image, 0)

    def mask(self, mask: Tensor) -> Tensor:
        """uint8 (H, W) to (size, size), nearest neighbour."""
        inside = self.content(*mask.shape)
        if mask.shape != inside:
            mask = functional.interpolate(mask[None, None], inside, mode="nearest")[0, 0]
        return self._pad(mask, IGNORE)

    def restore(self, logits: Tensor, height: int, width: int) -> Tensor:
        """Float (h', w') logits over the square to (height, width) of the image.

        Bilinear with ``align_corners=True``, as the field's code does.
        """
        inside = self.content(height, width)
        if inside != (self.size, self.size):
            logits = _bilinear(logits, self.size, self.size)[: inside[0], : inside[1]]
        return _bilinear(logits, height, width)

    def _pad(self, plane: Tensor, value: int) -> Tensor:
        height, width = plane.shape[-2:]
        if (height, width) == (self.size, self.size):
            return plane
        return functional.pad(plane, (0, self.size - width, 0, self.size - height), value=value)


def stack_padded(planes: list[Tensor], value: int) -> Tensor:
    """(H_i, W_i) planes as one (B, max H, max W) tensor, padded below and to the right."""
    height = max(plane.shape[0] for plane in planes)
    width = max(plane.shape[1] for plane in planes)
    if all(plane.shape == (height, width) for plane in planes):
        return torch.stack(planes)
    stacked = planes[0].new_full((len(planes), height, width), value)
    for row, plane in zip(stacked, planes, strict=True):
        row[: plane.shape[0], : plane.shape[1]] = plane
    return stacked


def _bilinear(plane: Tensor, height: int, width: int) -> Tensor:
    if plane.shape == (height, width):
        return plane
    return functional.interpolate(
        plane[None, None], (height, width), mode="bilinear", align_corners=True
    )[0, 0]
