"""Annotation files with the sizes of LVIS and COCO, for benchmarks: random outlines, no images.

As a script: ``python tests/benchmarks/lvis_like.py lvis FILE --share 0.1``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from fssbench.data.coco_masks import CATEGORIES

HEIGHT, WIDTH = 480, 640


@attrs.frozen(kw_only=True)
class Kind:
    """Sizes of the training annotations of a dataset.

    Attributes:
        images: number of images.
        annotations: number of annotations.
        categories: names of the categories by id.
        corners: mean number of corners of an outline, so that the file has the official size.
        order: keys of the file in their order.
        crowds: share of crowd regions, which are run lengths.
    """

    images: int
    annotations: int
    categories: dict[int, str]
    corners: int
    order: tuple[str, ...]
    crowds: float = 0.0


KINDS = {
    # 1.1 GB. The annotations come first, which is the harder order: sizes of images are unknown.
    "lvis": Kind(
        images=100_170, annotations=1_270_141, corners=48,
        categories={number: f"class_{number}" for number in range(1, 1204)},
        order=("annotations", "images", "categories"),
    ),
    # 450 MB: instances_train2017.json.
    "coco": Kind(
        images=118_287, annotations=860_001, corners=22, categories=CATEGORIES, crowds=0.01,
        order=("images", "annotations", "categories"),
    ),
}  # fmt: skip


def write(path: Path, kind: Kind, share: float) -> tuple[int, int]:
    """Write a share of a dataset's annotations; return the numbers of images and annotations."""
    generator = np.random.default_rng(0)
    images, annotations = round(kind.images * share), round(kind.annotations * share)
    # Annotations of an image do not follow each other, and classes are as frequent as words are.
    of_image = generator.integers(1, images + 1, annotations)
    numbers = np.array(list(kind.categories))
    chances = 1 / np.arange(1, len(numbers) + 1)
    of_class = generator.choice(numbers, annotations, p=chances / chances.sum())

    def annotation(index: int) -> dict[str, Any]:
        if generator.random() < kind.crowds:
            cuts = np.sort(generator.integers(0, HEIGHT * WIDTH, 40))
            counts = np.diff([0, *cuts.tolist(), HEIGHT * WIDTH]).tolist()
            segmentation: Any = {"size": [HEIGHT, WIDTH], "counts": counts}
            crowd = {"iscrowd": 1}
        else:
            parts = 1 + int(generator.random() < 0.15)
            segmentation = [_outline(generator, kind.corners // parts) for _ in range(parts)]
            crowd = {"iscrowd": 0} if kind.crowds else {}
        return {
            "area": 1234.56, **crowd, "id": index + 1, "segmentation": segmentation,
            "image_id": int(of_image[index]), "bbox": [1.5, 2.25, 100.12, 80.31],
            "category_id": int(of_class[index]),
        }  # fmt: skip

    def image(index: int) -> dict[str, Any]:
        name = f"{index + 1:012d}.jpg"
        return {
            "id": index + 1, "height": HEIGHT, "width": WIDTH, "license": 1, "file_name": name,
            "date_captured": "2013-11-14 17:02:52", "neg_category_ids": [3, 5, 8, 9],
            "coco_url": f"http://images.cocodataset.org/train2017/{name}",
            "not_exhaustive_category_ids": [],
        }  # fmt: skip

    def category(index: int) -> dict[str, Any]:
        number = int(numbers[index])
        return {"id": number, "name": kind.categories[number], "frequency": "f"}

    makers = {
        "images": (image, images), "annotations": (annotation, annotations),
        "categories": (category, len(numbers)),
    }  # fmt: skip
    with path.open("w") as file:
        file.write('{"info": {"year": 2020}')
        for key in kind.order:
            make, count = makers[key]
            file.write(f', "{key}": [')
            for index in range(count):
                file.write((", " if index else "") + json.dumps(make(index)))
            file.write("]")
        file.write("}")
    return images, annotations


def _outline(generator: np.random.Generator, corners: int) -> list[float]:
    """A polygon around a point, of about as many corners and of any size."""
    count = max(3, int(corners * generator.lognormal(-0.125, 0.5)))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radii = min(5 * generator.lognormal(1.2, 0.9), 220) * generator.uniform(0.7, 1.0, count)
    x = generator.uniform(20, WIDTH - 20) + radii * np.cos(angles)
    y = generator.uniform(20, HEIGHT - 20) + radii * np.sin(angles)
    points = np.stack([x.clip(0, WIDTH), y.clip(0, HEIGHT)], 1).round(2)
    found: list[float] = points.flatten().tolist()
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--share", type=float, default=0.1)
    given = parser.parse_args()
    write(given.file, KINDS[given.kind], given.share)
