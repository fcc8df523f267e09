"""Data and manifests of the benchmarks: PASCAL's sizes, and how often its images come back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fssbench.data.dataset import Dataset
from fssbench.data.images import read_image
from fssbench.episodes.episode import Episode

EPISODES = int(os.environ.get("FSSBENCH_BENCH_EPISODES", "20"))
"""Episodes of a side-by-side run."""

SAMPLE = int(os.environ.get("FSSBENCH_BENCH_SAMPLE", "3"))
"""How many of them the plain loop does; its episodes all cost the same."""

REAL_EPISODES, REAL_PAIRS, REAL_CLASSES = 1000, 346, 5
"""Of `pascal5i/v1-1k`, fold 0."""


class Photographs(Dataset):
    """One class of JPEG files of 500 x 375 pixels, an object on a background of low frequencies."""

    name = "photographs"
    folds = 1
    classes = ("thing",)

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.names = [f"{number:06d}" for number in range(count)]
        generator = np.random.default_rng(0)
        for name in self.names:
            coarse = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
            picture.save(folder / f"{name}.jpg", quality=90)

    def fold_classes(self, fold: int):
        return (0,)

    def image_ids(self, split: str):
        return self.names

    def class_pixels(self, image_id: str):
        return {0: int((self.mask(image_id, 0) == 1).sum())}

    def image(self, image_id: str):
        return read_image(self.folder / f"{image_id}.jpg")

    def mask(self, image_id: str, class_id: int):
        """A fifth of the image, which is PASCAL's mean."""
        number = int(image_id)
        mask = torch.zeros(375, 500, dtype=torch.uint8)
        top, left = 20 + 7 * number % 150, 30 + 13 * number % 200
        mask[top : top + 170, left : left + 220] = 1
        mask[top : top + 2, left : left + 220] = 255
        return mask

    def fingerprint(self, split: str = "val"):
        return "0" * 64


def episodes_like_pascal(count: int, shots: int) -> tuple[int, list[Episode]]:
    """Images of one class, and episodes in which they come back as often as in the real manifest.

    There, 1,000 episodes over 346 pairs of an image and a class ask each pair 2.9 times, and
    supports are drawn from the same class: so for one class of fewer images as many times fewer
    episodes do the same.
    """
    images = max(shots + 2, round(count * REAL_PAIRS / REAL_EPISODES))
    generator = np.random.default_rng(shots)
    episodes = []
    for index in range(count):
        query = index % images  # all once before any repeats
        others = [number for number in range(images) if number != query]
        support = generator.choice(others, shots, replace=False)
        episodes.append(
            Episode(
                index=index, class_id=0, query=f"{query:06d}",
                support=tuple(f"{number:06d}" for number in support),
            )
        )  # fmt: skip
    return images, episodes
