"""A person's own images."""

from __future__ import annotations

import pytest
import torch

from fssbench import FssbenchError, Predictor, backbone, matcher
from fssbench.matchers.checkpoint import write_checkpoint


@pytest.fixture
def predictor():
    return Predictor("prototype", "pixels", device="cpu")


def scene(height=100, width=80):
    """A red square on blue, and its mask."""
    image = torch.zeros(3, height, width)
    image[2] = 1
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[10:50, 20:60] = 1
    image[:, mask == 1] = torch.tensor([1.0, 0.0, 0.0])[:, None]
    return image, mask


def test_finds_what_it_was_shown(predictor):
    image, mask = scene()
    predictor.set_support(image[None], mask[None])
    other = image.flip(-1)
    prediction = predictor.predict(other)
    assert prediction.mask.shape == (100, 80)
    assert prediction.mask.dtype == torch.bool
    assert prediction.logits.dtype == torch.float32
    truth = mask.flip(-1) == 1
    overlap = (prediction.mask & truth).sum() / (prediction.mask | truth).sum()
    assert overlap > 0.8


def test_uint8_and_float_are_the_same_image(predictor):
    image, mask = scene(64, 64)
    predictor.set_support(image[None], mask[None])
    first = predictor.predict(image).logits
    predictor.set_support((image * 255).to(torch.uint8)[None], mask[None])
    assert torch.equal(first, predictor.predict((image * 255).to(torch.uint8)).logits)


def test_several_shots_and_ignored_pixels(predictor):
    image, mask = scene()
    mask[0] = 255
    predictor.set_support(torch.stack([image, image.flip(1)]), torch.stack([mask, mask.flip(0)]))
    assert predictor.predict(image).mask.any()


@pytest.mark.parametrize("method", ["prototype", "masked"])
def test_supports_of_different_sizes(method):
    predictor = Predictor(method, "pixels", device="cpu")
    (one, its_mask), (two, other_mask) = scene(64, 64), scene(200, 90)
    shrunk = predictor.pipeline.geometry.image(two)
    small_mask = predictor.pipeline.geometry.mask(other_mask)
    predictor.set_support([one, two], [its_mask, other_mask])
    mixed = predictor.predict(one).logits
    predictor.set_support(torch.stack([one, shrunk]), torch.stack([its_mask, small_mask]))
    assert torch.equal(mixed, predictor.predict(one).logits)
    with pytest.raises(FssbenchError, match=r"need \[\(64, 64\), \(200, 90\)\]"):
        predictor.set_support([one, two], [other_mask, its_mask])
    with pytest.raises(FssbenchError, match=r"images have shape \[\]; expected"):
        predictor.set_support([], [])


def test_a_mask_that_vanishes_at_the_input_size(predictor):
    image, mask = scene(640, 640)
    speck = torch.zeros_like(mask)
    speck[5, 5] = 1
    with pytest.raises(FssbenchError, match="mask 2 marks 1 of 409600 pixels, too few .* 64x64"):
        predictor.set_support([image, image], [mask, speck])


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (torch.rand(3, 8, 8), torch.ones(8, 8), r"shape \(3, 8, 8\); expected \(K, 3, H, W\)"),
        (torch.rand(1, 3, 8, 8), torch.ones(1, 9, 8), r"masks have shape .* need \(1, 8, 8\)"),
        (torch.rand(1, 3, 8, 8), torch.full((1, 8, 8), 7), "mask 1 has the values 7; write 1 for"),
        (torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8), "no pixel of the masks is 1"),
        (torch.rand(1, 3, 8, 8) * 255, torch.ones(1, 8, 8), r"floats must lie in \[0, 1\]"),
        (torch.full((1, 3, 8, 8), float("nan")), torch.ones(1, 8, 8), r"must lie in \[0, 1\]"),
        (torch.ones(1, 3, 8, 8, dtype=torch.int64), torch.ones(1, 8, 8), "dtype torch.int64"),
    ],
)
def test_wrong_supports(predictor, images, masks, message):
    with pytest.raises(FssbenchError, match=message):
        predictor.set_support(images, masks)


def test_wrong_order_and_wrong_queries(predictor):
    image, mask = scene()
    with pytest.raises(FssbenchError, match="call set_support"):
        predictor.predict(image)
    predictor.set_support(image[None], mask[None])
    with pytest.raises(FssbenchError, match=r"expected \(3, H, W\)"):
        predictor.predict(image[0])


def test_from_checkpoint(tmp_path):
    learner = matcher("learner", backbone("pixels"), width=2)
    with torch.no_grad():
        learner.bias.fill_(3.0)
    header = {"matcher": "learner", "backbone": "pixels", "config": {"width": 2}}
    write_checkpoint(tmp_path / "c.safetensors", learner, header)
    made = Predictor(checkpoint=tmp_path / "c.safetensors", device="cpu")
    image, mask = scene()
    made.set_support(image[None], mask[None])
    assert made.predict(image).logits.min() > 3.0  # 0.2 - distance + 2 biases of 3
    with pytest.raises(FssbenchError, match="there is no such file"):
        Predictor(checkpoint=tmp_path / "none")
