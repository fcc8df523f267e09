"""Episodes of random images, for tests of methods on whole images."""

from __future__ import annotations

import torch

from fssbench import EpisodeImages


def draw(shots: int, class_name: str | None = None, seed: int = 0) -> EpisodeImages:
    """An episode whose images have different sizes, none of them square."""
    generator = torch.Generator().manual_seed(seed)

    def image(height: int, width: int) -> torch.Tensor:
        return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)

    masks = []
    for k in range(shots):
        mask = torch.zeros(80 + k, 60, dtype=torch.uint8)
        mask[10:40, 20 + k : 50] = 1
        mask[0] = 255
        masks.append(mask)
    return EpisodeImages(
        query=image(70, 110),
        images=tuple(image(80 + k, 60) for k in range(shots)),
        masks=tuple(masks),
        class_name=class_name,
    )
