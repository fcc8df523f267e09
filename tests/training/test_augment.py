"""Augmentation: image and masks move together, outside is 255, nothing but the draw decides."""

from __future__ import annotations

import pytest
import torch

from fssbench import Draw
from fssbench.data.geometry import Geometry
from fssbench.training.augment import Augmentation
from fssbench.training.recipe import Augment

FILL = (124.0, 116.0, 104.0)


def chain(size=64, **recipe):
    return Augmentation(recipe=Augment(**recipe), geometry=Geometry(size), fill=FILL)


@pytest.fixture
def picture():
    """A dark image with a bright block, and the block's mask."""
    mask = torch.zeros(80, 100, dtype=torch.uint8)
    mask[20:50, 10:55] = 1
    return (20 + 200 * mask).expand(3, -1, -1).contiguous(), mask


EVERY = {
    "scale": {"scale": (0.7, 1.4)},
    "rotate": {"rotate": (-30.0, 30.0)},
    "blur": {"blur": 1.0},
    "flip": {"flip": 0.5},
    "crop": {"resize": "none"},
    "all": {"scale": (0.7, 1.4), "rotate": (-10.0, 10.0), "blur": 0.5, "flip": 0.5},
}


@pytest.mark.parametrize("recipe", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("size", [64, 120])
def test_image_and_mask_move_together(picture, recipe, size):
    image, mask = picture
    for number in range(10):
        found, (plane, again) = chain(size, **recipe)(image, [mask, mask], Draw(number))
        assert found.shape == (3, size, size)
        assert found.dtype == plane.dtype == torch.uint8
        assert torch.equal(plane, again)
        inside = plane != 255
        # Edges are smoothed; elsewhere the mask says what the image shows.
        wrong = ((found[0] > 120) != (plane == 1)) & inside & (found[0] != round(FILL[0]))
        assert wrong.sum() < 0.04 * inside.sum()


def test_outside_is_ignored_and_has_the_mean_colour(picture):
    image, mask = picture
    found, (plane,) = chain(120, resize="none", crop="centre")(image, [mask], Draw(0))
    outside = plane == 255
    assert outside.sum() == 120 * 120 - 80 * 100
    assert (torch.tensor(FILL).byte() == found[:, outside].T).all()
    assert torch.equal(found[:, 20:100, 10:110], image)
    turned, (plane,) = chain(64, rotate=(45.0, 45.0))(image, [mask], Draw(0))
    assert plane[0, 0] == 255
    assert turned[:, 0, 0].tolist() == [124, 116, 104]


def test_crops_vary_and_stay_inside(picture):
    image, mask = picture
    crops = [chain(64, resize="none")(image, [mask], Draw(n))[0] for n in range(20)]
    assert len({crop.numpy().tobytes() for crop in crops}) > 10
    centre, _ = chain(64, resize="none", crop="centre")(image, [mask], Draw(0))
    assert torch.equal(centre, image[:, 8:72, 18:82])


def test_crops_are_drawn_again_until_they_show_most_of_label_1(picture):
    image, labels = picture
    labels[-8:, -8:] = 2
    recipe = {"resize": "none", "crop": "random"}

    def share(number, **more):
        _, (plane,) = chain(64, **recipe, **more)(image, [labels], Draw(number))
        return int((plane == 1).sum()) / int((labels == 1).sum())

    once = [share(number) for number in range(40)]
    again = [share(number, crop_retries=31) for number in range(40)]
    assert 10 < sum(found >= 0.85 for found in once) < 30
    assert min(again) >= 0.85
    # A first crop that is good enough is the same; so is one of an image without label 1.
    assert all(b == a for a, b in zip(once, again, strict=True) if a >= 0.85)
    plain = chain(64, **recipe)(image, [labels * 2], Draw(0))[0]
    assert torch.equal(plain, chain(64, **recipe, crop_retries=31)(image, [labels * 2], Draw(0))[0])


def test_flips_have_the_given_rate(picture):
    image, mask = picture
    flipped = 0
    for number in range(200):
        found, (plane,) = chain(64, flip=0.3)(image, [mask], Draw(number))
        plain, (own,) = chain(64)(image, [mask], Draw(number))
        turned = torch.equal(found, plain.flip(-1))
        assert turned == torch.equal(plane, own.flip(-1))
        flipped += turned
    assert 40 <= flipped <= 80


def test_rotations_have_the_given_rate(picture):
    image, mask = picture
    plain, _ = chain(64)(image, [mask], Draw(0))
    turned = 0
    for number in range(100):
        found, _ = chain(64, rotate=(5.0, 30.0), rotate_probability=0.3)(
            image, [mask], Draw(number)
        )
        turned += not torch.equal(found, plain)
    assert 15 <= turned <= 45


@pytest.mark.parametrize("recipe", EVERY.values(), ids=EVERY)
def test_the_same_draw_gives_the_same_picture(picture, recipe):
    image, mask = picture
    torch.manual_seed(1)
    one = chain(**recipe)(image, [mask], Draw("a", 3))
    torch.manual_seed(2)
    two = chain(**recipe)(image, [mask], Draw("a", 3))
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1][0], two[1][0])
    assert chain(**recipe).variants == (2 if list(recipe) == ["flip"] else None)


def test_without_augmentation_it_is_what_evaluation_does(picture):
    image, mask = picture
    for resize in ("squash", "letterbox"):
        geometry = Geometry(64, resize)
        for recipe in (Augment(), Augment(resize=resize)):
            augmentation = Augmentation(recipe=recipe, geometry=geometry)
            found, (plane,) = augmentation(image, [mask], Draw(0))
            assert torch.equal(found, geometry.image(image))
            assert torch.equal(plane, geometry.mask(mask))
            assert augmentation.variants == 1
