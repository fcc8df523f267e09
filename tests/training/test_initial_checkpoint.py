"""What a stage takes from another stage's checkpoint, and labels that come with episodes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fssbench
from fssbench import FssbenchError
from fssbench.data.dataset import IGNORE
from fssbench.data.geometry import Geometry
from fssbench.data.shapes.shapes import Shapes, ShapesConfig
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.training.augment import Augmentation
from fssbench.training.loader import BatchLoader
from fssbench.training.recipe import Augment


class TwoParts(fssbench.Matcher):
    """A base and a head of some width."""

    def __init__(self, width):
        super().__init__(config=None, backbone=None)
        self.base = nn.Linear(3, 2)
        self.head = nn.Linear(2, width)

    def request(self):
        raise NotImplementedError

    def embed_support(self, support):
        raise NotImplementedError

    def segment(self, query, support):
        raise NotImplementedError


def test_loading_some_tensors_of_a_checkpoint(tmp_path):
    first, second = TwoParts(4), TwoParts(5)
    header = {"matcher": "two", "config": {}, "backbone": "none"}
    write_checkpoint(tmp_path / "c.safetensors", first, header)
    checkpoint = read_checkpoint(tmp_path / "c.safetensors")
    before = second.head.weight.clone()
    with pytest.raises(FssbenchError, match=r"it has head.bias \(4,\) instead of \(5,\)|head"):
        checkpoint.load_into(second)
    checkpoint.load_into(second, ("base.",))
    assert torch.equal(second.base.weight, first.base.weight)
    assert torch.equal(second.head.weight, before)
    with pytest.raises(FssbenchError, match="head"):
        checkpoint.load_into(second, ("base.", "head."))


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_labels_of_queries(flip):
    dataset = Shapes(ShapesConfig(images_per_split=40))
    classes = tuple(range(5, 20))
    loader = BatchLoader(
        dataset=dataset,
        feed="episodes",
        augmentation=Augmentation(recipe=Augment(flip=flip), geometry=Geometry(160)),
        hide=True,
        classes=classes,
        key=("test",),
        marks=True,
    )
    query, support = "train-000001", "train-000002"
    shown = next(c for c in dataset.class_pixels(query) if c in classes)
    episode = fssbench.Episode(index=0, class_id=shown, query=query, support=(support,))
    batch = loader.load(0, 0, [episode])
    assert batch.masks.shape == (1, 2, 160, 160)
    assert batch.labels.shape == (1, 160, 160)
    expected = torch.zeros(160, 160, dtype=torch.uint8)
    for class_id in dataset.class_pixels(query):
        if class_id in classes:
            expected[dataset.mask(query, class_id) == 1] = classes.index(class_id) + 1
    if flip:
        expected = expected.flip(-1)
    assert torch.equal(batch.labels[0], expected)
    assert torch.equal(batch.labels[0] == classes.index(shown) + 1, batch.masks[0, 0] == 1)
    assert not (batch.labels == IGNORE).any()


def test_squashed_instead_of_cropped():
    augmentation = Augmentation(
        recipe=Augment(resize="none", scale=(1.5, 1.5), crop="squash"), geometry=Geometry(20)
    )
    assert augmentation.variants is None
    image = torch.zeros(3, 16, 40, dtype=torch.uint8)
    image[:, :, 20:] = 200
    mask = (image[0] > 0).to(torch.uint8)
    shown, (labels,) = augmentation(image, [mask], fssbench.Draw("x"))
    assert shown.shape == (3, 20, 20)
    assert (labels[:, 10:] == 1).all()
    assert not labels[:, :10].any()
    assert (shown[:, :, 12:] == 200).all()
