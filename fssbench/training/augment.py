"""Joint augmentation of an image and its masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from fssbench.data.dataset import IGNORE
from fssbench.data.geometry import Geometry
from fssbench.episodes.draw import Draw
from fssbench.training.recipe import Augment

_MOST_OF_IT = 0.85
"""Share of the pixels of label 1 that a crop must have, while it may be retried."""

_NEAREST, _BILINEAR = InterpolationMode.NEAREST, InterpolationMode.BILINEAR


@attrs.frozen(kw_only=True)
class Augmentation:
    """Resizing, scaling, rotation, blur, flip and crop, as in PFENet and its successors.

    The result is determined by `draw` alone, so it depends neither on loader processes nor on the
    order of loading.

    Attributes:
        recipe: selected augmentations and their strength.
        geometry: size of the result, and the resizing rule of the evaluation.
        fill: colour (0 to 255) of the padding.
    """

    recipe: Augment
    geometry: Geometry
    fill: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def variants(self) -> int | None:
        """Number of different results for one image: 1, 2 (flips alone), or None for many."""
        recipe = self.recipe
        cuts = recipe.resize == "none" and recipe.crop == "random"
        if recipe.scale or recipe.rotate or recipe.blur or cuts:
            return None
        return 2 if recipe.flip else 1

    def __call__(
        self, image: Tensor, masks: Sequence[Tensor], draw: Draw
    ) -> tuple[Tensor, list[Tensor]]:
        """Augment an image with its masks.

        Args:
            image: uint8 (3, H, W).
            masks: uint8 (H, W) each; 255 is ignored, and used for padding.
            draw: the only source of randomness.

        Returns:
            The image, uint8 (3, S, S), and the masks, uint8 (S, S), with S the geometry's size.
        """
        recipe, planes = self.recipe, list(masks)
        if recipe.resize != "none":
            resize = self.geometry.resize if recipe.resize == "request" else recipe.resize
            image, planes = self._resized(image, planes, resize)
        if recipe.scale is not None:
            scale = _between(draw, recipe.scale)
            size = [max(1, round(side * scale)) for side in image.shape[-2:]]
            image = functional.resize(image, size, _BILINEAR, antialias=True)
            planes = [functional.resize(plane[None], size, _NEAREST)[0] for plane in planes]
        if recipe.rotate is not None and _happens(draw, recipe.rotate_probability):
            angle = _between(draw, recipe.rotate)
            image = functional.rotate(image, angle, _BILINEAR, fill=list(self.fill))
            planes = [
                functional.rotate(plane[None], angle, _NEAREST, fill=[IGNORE])[0]
                for plane in planes
            ]
        if _happens(draw, recipe.blur):
            image = functional.gaussian_blur(image, [5, 5])
        if _happens(draw, recipe.flip):
            image, planes = image.flip(-1), [plane.flip(-1) for plane in planes]
        if recipe.crop == "squash":
            return self._resized(image, planes, "squash")
        return self._crop(image, planes, draw)

    def _resized(
        self, image: Tensor, masks: list[Tensor], resize: Literal["squash", "letterbox"]
    ) -> tuple[Tensor, list[Tensor]]:
        geometry = attrs.evolve(self.geometry, resize=resize)
        return geometry.image(image), [geometry.mask(mask) for mask in masks]

    def _crop(self, image: Tensor, masks: list[Tensor], draw: Draw) -> tuple[Tensor, list[Tensor]]:
        size = self.geometry.size
        height, width = image.shape[-2:]
        missing = max(0, size - height), max(0, size - width)
        if any(missing):
            top, left = missing[0] // 2, missing[1] // 2
            sides = [left, top, missing[1] - left, missing[0] - top]
            # torchvision cannot pad tensors with a colour.
            padded = torch.tensor(self.fill).round().to(torch.uint8).view(3, 1, 1)
            padded = padded.repeat(1, height + missing[0], width + missing[1])
            padded[:, top : top + height, left : left + width] = image
            image = padded
            masks = [functional.pad(mask[None], sides, fill=IGNORE)[0] for mask in masks]
            height, width = image.shape[-2:]
        rows, columns = self._window(masks, height, width, draw)
        return image[:, rows, columns], [mask[rows, columns] for mask in masks]

    def _window(
        self, masks: Sequence[Tensor], height: int, width: int, draw: Draw
    ) -> tuple[slice, slice]:
        """Return rows and columns of the crop."""
        size = self.geometry.size
        top, left = (height - size) // 2, (width - size) // 2
        retries = self.recipe.crop_retries if masks else 0
        wanted = _MOST_OF_IT * int((masks[0] == 1).sum()) if retries else 0
        for _ in range(1 + retries if self.recipe.crop == "random" else 0):
            top, left = draw.below(height - size + 1), draw.below(width - size + 1)
            if (
                not wanted
                or int((masks[0][top : top + size, left : left + size] == 1).sum()) >= wanted
            ):
                break
        return slice(top, top + size), slice(left, left + size)


def _between(draw: Draw, ends: tuple[float, float]) -> float:
    return ends[0] + (ends[1] - ends[0]) * draw.below(1 << 53) / (1 << 53)


def _happens(draw: Draw, probability: float) -> bool:
    # No draw for a certain outcome, so that a recipe without blur keeps its sequence of flips.
    if probability in (0.0, 1.0):
        return probability == 1.0
    return _between(draw, (0.0, 1.0)) < probability
