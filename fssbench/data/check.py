"""Is a dataset on the disk what it should be?"""

from __future__ import annotations

from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError


def check_image(dataset: Dataset, image_id: str) -> list[str]:
    """What is wrong with an image and the masks of its classes: one line each, or nothing."""
    try:
        size = dataset.image(image_id).shape[-2:]
        pixels = dataset.class_pixels(image_id)
        problems = []
        for class_id, count in pixels.items():
            mask = dataset.mask(image_id, class_id)
            if mask.shape != size:
                problems.append(
                    f"{image_id}: mask of {dataset.classes[class_id]} is {tuple(mask.shape)}, the "
                    f"image {tuple(size)}"
                )
            elif int((mask == 1).sum()) != count:
                problems.append(
                    f"{image_id}: {dataset.classes[class_id]} has other pixels than the index says"
                )
        return problems
    except FssbenchError as error:
        return [str(error)]


def count_classes(dataset: Dataset, split: str) -> list[dict[str, object]]:
    """For each class: its name, fold, images that hold it, and pixels in all."""
    images = [0] * len(dataset.classes)
    pixels = [0] * len(dataset.classes)
    for image_id in dataset.image_ids(split):
        for class_id, count in dataset.class_pixels(image_id).items():
            images[class_id] += 1
            pixels[class_id] += count
    folds = {c: fold for fold in range(dataset.folds) for c in dataset.fold_classes(fold)}
    return [
        {"fold": folds.get(c), "name": name, "images": images[c], "pixels": pixels[c]}
        for c, name in enumerate(dataset.classes)
        if c in folds or images[c]
    ]
