"""Episodes of whole images that need no dataset."""

from __future__ import annotations

import torch

from fssbench import EpisodeImages


def episode(shots=1, size=(120, 96), empty=False):
    """Return an episode of red discs on noise."""
    generator = torch.Generator().manual_seed(shots)

    def disc(height, width):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        mask = (y - height // 2) ** 2 + (x - width // 3) ** 2 < 20**2
        image = torch.randint(90, 160, (3, height, width), generator=generator, dtype=torch.uint8)
        image[0, mask], image[1:, mask] = 230, 20
        return image, mask.to(torch.uint8)

    query, _ = disc(*size)
    images, masks = zip(*(disc(100, 130 + k) for k in range(shots)), strict=True)
    if empty:
        masks = tuple(torch.zeros_like(mask) for mask in masks)
    return EpisodeImages(query=query, images=images, masks=masks)
