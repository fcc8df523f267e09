"""From images to the encoder's square and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fssbench.data.geometry import Geometry, stack_padded


def test_squash_equals_pillow():
    pixels = np.random.default_rng(0).integers(0, 256, (75, 133, 3), dtype=np.uint8)
    ours = Geometry(64).image(torch.from_numpy(pixels).permute(2, 0, 1))
    pillow = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))
    difference = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - pillow.astype(int))
    assert difference.max() <= 1


def test_what_fits_is_left_as_it_is():
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    assert Geometry(64).image(image) is image
    assert Geometry(64, "letterbox").image(image) is image


@pytest.mark.parametrize(("height", "width", "inside"), [(50, 100, (32, 64)), (100, 50, (64, 32))])
def test_letterbox_keeps_the_aspect(height, width, inside):
    geometry = Geometry(64, "letterbox")
    image = geometry.image(torch.full((3, height, width), 200, dtype=torch.uint8))
    mask = geometry.mask(torch.ones(height, width, dtype=torch.uint8))
    assert geometry.content(height, width) == inside
    assert (image[:, : inside[0], : inside[1]] == 200).all()
    assert image.float().sum() == 200 * 3 * inside[0] * inside[1]
    assert (mask[: inside[0], : inside[1]] == 1).all()
    assert (mask == 255).sum() == 64 * 64 - inside[0] * inside[1]


def test_masks_keep_their_values():
    mask = torch.tensor([[0, 1], [255, 1]], dtype=torch.uint8).repeat_interleave(9, 0)
    assert set(Geometry(8).mask(mask).unique().tolist()) == {0, 1, 255}


@pytest.mark.parametrize("resize", ["squash", "letterbox"])
def test_logits_return_to_the_image(resize):
    """A ramp survives the way there and back, at the corners too (align_corners=True)."""
    geometry = Geometry(64, resize)
    ramp = torch.linspace(0, 1, 90)[None].expand(45, 90)
    height, width = geometry.content(45, 90)
    square = torch.zeros(64, 64)
    square[:height, :width] = torch.linspace(0, 1, width)[None]
    back = geometry.restore(square, 45, 90)
    torch.testing.assert_close(back, ramp, atol=1e-5, rtol=0)


def test_planes_of_different_sizes_are_padded():
    stacked = stack_padded([torch.ones(2, 3), torch.ones(3, 1)], 9)
    assert stacked.shape == (2, 3, 3)
    assert stacked[0, 2].tolist() == [9, 9, 9]
    assert stacked[1, :, 1:].unique().tolist() == [9]
