"""Synthetic images of two objects of equal size on noise, with their masks."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Picture:
    """An image with two objects.

    Attributes:
        image: uint8 (3, H, W).
        mask: uint8 (H, W), 1 on the object of interest.
        other: uint8 (H, W), 1 on the other object.
    """

    image: Tensor
    mask: Tensor
    other: Tensor

    def filled(self, value: int) -> Picture:
        """Return the image with a mask of one value."""
        return attrs.evolve(self, mask=torch.full_like(self.mask, value))

    def with_other(self, value: int) -> Picture:
        """Return the image with a mask that also marks the other object, with a value."""
        return attrs.evolve(
            self, mask=torch.where(self.other == 1, value, self.mask).to(torch.uint8)
        )

    def permuted(self, seed: int = 0) -> Picture:
        """Return the image with as many marked pixels at random positions."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.mask.numel(), generator=generator)
        return attrs.evolve(self, mask=self.mask.flatten()[order].view_as(self.mask))


def picture(number: int, height: int = 96, width: int = 96) -> Picture:
    """Return the image of a number, always the same.

    A bright, striped object on the left and a dark, plain one on the right, exchanged in every
    second image, each a third of the width and half of the height.
    """
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(90, 140, (3, height, width), generator=generator)
    left, right = torch.zeros(height, width), torch.zeros(height, width)
    top = int(torch.randint(height // 8, height // 3, (1,), generator=generator))
    inset = max(1, width // 12)
    left[top : top + height // 2, inset : inset + width // 3] = 1
    right[top : top + height // 2, width - inset - width // 3 : width - inset] = 1
    asked, other = (left, right) if number % 2 == 0 else (right, left)
    stripes = (torch.arange(width) // 4 % 2 * 60 + 160).expand(height, width)
    colours = torch.tensor([1.0, 0.8, 0.2]).view(3, 1, 1)
    image = torch.where(asked == 1, (stripes * colours).long(), image)
    image = torch.where(other == 1, torch.tensor([20, 60, 90]).view(3, 1, 1), image)
    return Picture(image.to(torch.uint8), asked.to(torch.uint8), other.to(torch.uint8))
