"""A dataset that exists in memory only."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from fssbench.data.dataset import Dataset


class Fake(Dataset):
    """A dataset of images by id, as {class id: pixels}; each fold has half the classes."""

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
    """40 images; image i has 5000 pixels of class i % 8 and 3000 of class (i + 1) % 8."""
    images = {f"im{i:03d}": {i % 8: 5000, (i + 1) % 8: 3000} for i in range(40)}
    return Fake(images, 8)


@pytest.fixture
def make_fake():
    return Fake


class Named(Fake):
    """A dataset of a registered name; `novel` has the novel classes of each fold."""

    splits = ("train", "val", "test")

    def __init__(self, name, classes, novel, images):
        super().__init__(images if isinstance(images, dict) else {i: {} for i in images}, 0)
        self.name, self.classes, self.folds = name, tuple(classes), len(novel)
        self.novel = novel

    def fold_classes(self, fold):
        self.check_fold(fold)
        return tuple(self.novel[fold])


@pytest.fixture
def make_pascal():
    """Return a function that makes PASCAL-5i of images, ``{id: {class id: pixels}}`` or ids."""

    def make(images):
        folds = [range(5 * fold, 5 * fold + 5) for fold in range(4)]
        return Named("pascal5i", map(str, range(20)), folds, images)

    return make


@pytest.fixture
def make_coco():
    """Return a function that makes COCO-20i of images."""

    def make(images):
        folds = [range(fold, 80, 4) for fold in range(4)]
        return Named("coco20i", map(str, range(80)), folds, images)

    return make


@pytest.fixture
def make_fss():
    """Return a function that makes FSS-1000 of classes of ten images."""

    def make(classes):
        images = [f"{name}/{n}" for name in classes for n in range(1, 11)]
        return Named("fss1000", classes, [range(len(classes))], images)

    return make
