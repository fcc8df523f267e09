"""A dataset that exists in memory only."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from fssbench.data.dataset import Dataset


class Fake(Dataset):
    """`images` maps image ids to {class id: pixels}; two folds of half the classes each."""

    name = "fake"
    folds = 2

    def __init__(self, images, classes):
        self.images = images
        self.classes = tuple(f"class{c}" for c in range(classes))

    def fold_classes(self, fold):
        self.check_fold(fold)
        half = len(self.classes) // 2
        return tuple(range(fold * half, (fold + 1) * half))

    def image_ids(self, split):
        self.check_split(split)
        return list(self.images)

    def class_pixels(self, image_id):
        return self.images[image_id]

    def image(self, image_id):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)

    def mask(self, image_id, class_id):
        return torch.zeros(8, 8, dtype=torch.uint8)

    def fingerprint(self, split="val"):
        return hashlib.sha256(json.dumps(self.images).encode()).hexdigest()


@pytest.fixture
def fake():
    """40 images; image i holds class i % 8 with 5000 pixels and class (i + 1) % 8 with 3000."""
    images = {f"im{i:03d}": {i % 8: 5000, (i + 1) % 8: 3000} for i in range(40)}
    return Fake(images, 8)


@pytest.fixture
def make_fake():
    return Fake
