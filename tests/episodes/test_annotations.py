"""Weaker supports: the rules, and the protocols that name them."""

from __future__ import annotations

import hashlib
import json
import math
import random

import attrs
import numpy
import pytest
import torch
from PIL import Image

from fssbench import build, registry
from fssbench.episodes.annotations import support_mask, weaker
from fssbench.episodes.draw import Draw
from fssbench.episodes.export import export_episodes
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest
from fssbench.specs import ProtocolSpec

KINDS = ("box", "point", "scribble")


def mask_of(*lines):
    values = {".": 0, "1": 1, "o": 255}
    return torch.tensor([[values[x] for x in line] for line in lines], dtype=torch.uint8)


def pixels(mask):
    return {tuple(pixel) for pixel in (mask == 1).nonzero().tolist()}


def disc_of(height, width):
    """A disc with an ignored rim, as VOC's."""
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    away = (down - height // 2) ** 2 + (right - width // 2) ** 2
    mask = (away < (height // 3) ** 2).to(torch.uint8)
    mask[(mask == 0) & (away < (height // 3 + 3) ** 2)] = 255
    return mask


def test_a_box_is_tight_around_all_objects_and_filled():
    mask = mask_of(
        "........",
        "..oo1...",
        "..o1....",
        "......1.",
        "oo......",
    )
    assert torch.equal(weaker(mask, "box", "any", 0), mask_of(
        "........",
        "...1111.",
        "...1111.",
        "...1111.",
        "........",
    ))  # fmt: skip


def test_without_a_mask_the_whole_image_is_marked():
    mask = mask_of("..1o", "....")
    assert torch.equal(weaker(mask, "no-mask", "any", 0), torch.ones_like(mask))


def test_points_of_a_small_object_are_all_its_pixels():
    mask = mask_of("..1..o", ".11..o", "......")
    for kind in ("point", "scribble"):
        assert weaker(mask, kind, "any", 0)[0, 2] == 1
    assert pixels(weaker(mask, "point", "any", 0)) == {(0, 2), (1, 1), (1, 2)}


def near(centres, mask):
    radius = max(1, max(mask.shape) // 128)
    return {
        (row, column)
        for row, column in pixels(mask)
        if any((row - y) ** 2 + (column - x) ** 2 <= radius**2 for y, x in centres)
    }


def plain_points(mask, draw):
    inside = sorted(pixels(mask))
    return near(draw.distinct(inside, min(20, len(inside))), mask)


def plain_scribbles(mask, draw):
    inside = sorted(pixels(mask))
    longest = max(1, 20 * max(mask.shape) // 512)
    centres = set()
    for row, column in draw.distinct(inside, min(9, len(inside))):
        y, x, heading = 1024 * row, 1024 * column, draw.below(32)
        for _ in range(10 + draw.below(20)):
            heading += draw.below(5) - 2
            down = round(1024 * math.sin(heading * math.pi / 16))
            right = round(1024 * math.cos(heading * math.pi / 16))
            for step in range(draw.below(longest + 1) + 1):
                last = y + step * down, x + step * right
                centres.add(((last[0] + 512) // 1024, (last[1] + 512) // 1024))
            y, x = last
    return near(centres, mask)


@pytest.mark.parametrize("size", [(24, 30), (160, 160), (150, 300)])
def test_points_and_scribbles_equal_plain_loops(size):
    mask = disc_of(*size)
    for kind, plain in (("point", plain_points), ("scribble", plain_scribbles)):
        drawn = weaker(mask, kind, "2007_000033", 7)
        assert pixels(drawn) == plain(mask, Draw(f"support-{kind}", "2007_000033", 7))
        assert 20 < len(pixels(drawn)) < len(pixels(mask))


def test_the_drawn_pixels_never_change():
    """The rules are part of released protocols; plain loops above check the pixels themselves."""
    mask = disc_of(375, 500)
    digests = {
        kind: hashlib.sha256(weaker(mask, kind, "im", 3).numpy().tobytes()).hexdigest()[:16]
        for kind in ("point", "scribble")
    }
    assert digests == {"point": "6edbc09ba5601cec", "scribble": "411caa3e2e89bca5"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_kind_keeps(kind):
    one = torch.zeros(500, 375, dtype=torch.uint8)
    assert not weaker(one, kind, "im", 0).any()
    one[499, 0] = 1
    assert pixels(weaker(one, kind, "im", 0)) == {(499, 0)}
    mask = disc_of(375, 500)
    drawn = weaker(mask, kind, "im", 0)
    assert drawn.dtype == torch.uint8
    assert drawn.shape == mask.shape
    assert set(drawn.unique().tolist()) == {0, 1}  # the rim of 255 would show the outline
    if kind == "box":
        assert pixels(drawn) > pixels(mask)
        assert torch.equal(drawn, weaker(mask, kind, "other", 0))
    else:
        assert pixels(drawn) < pixels(mask)
        assert len({len(pixels(weaker(mask, kind, i, c))) for i in "ab" for c in (0, 1)}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_not_used(kind):
    mask = disc_of(100, 100)
    first = weaker(mask, kind, "im", 0)
    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state()
    assert torch.equal(weaker(mask, kind, "im", 0), first)
    assert random.getstate() == states[0]
    assert numpy.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_dataset_shows_the_supports_of_its_protocol():
    whole = build.dataset("shapes", images_per_split=20)
    for kind in KINDS:
        shown = build.protocol_dataset(f"shapes/v1-1k-{kind}", images_per_split=20)
        image = "val-000000"
        for class_id in shown.class_pixels(image):
            mask = whole.mask(image, class_id)
            assert torch.equal(shown.mask(image, class_id), mask)  # of queries
            assert torch.equal(support_mask(whole, image, class_id), mask)
            drawn = weaker(mask, kind, image, class_id)
            assert torch.equal(support_mask(shown, image, class_id), drawn)


@pytest.mark.parametrize("dataset", ["pascal5i", "coco20i", "shapes"])
@pytest.mark.parametrize("kind", KINDS)
def test_protocols_differ_from_that_of_masks_in_the_supports_alone(dataset, kind):
    found, whole = (
        registry.registry().get(ProtocolSpec, f"{dataset}/v1-1k{suffix}")
        for suffix in (f"-{kind}", "")
    )
    assert whole.support_kind == "mask"
    assert found.support_kind == kind
    named = {
        field: getattr(whole, field)
        for field in ("name", "summary", "paper", "cite", "draw_key", "support_kind")
    }
    assert found.draw_key == whole.name
    assert attrs.evolve(found, **named) == whole


def test_episodes_are_those_of_masks():
    data = build.dataset("shapes", images_per_split=120)
    first, *others = (
        build_manifest(registry.registry().get(ProtocolSpec, name), data, fold=1, shots=5, seed=3)
        for name in ("shapes/v1-1k", *(f"shapes/v1-1k-{kind}" for kind in KINDS))
    )
    assert len({first.digest, *(other.digest for other in others)}) == 4
    for other in others:
        assert attrs.evolve(other, protocol=first.protocol) == first
        assert attrs.evolve(other, protocol=first.protocol).digest == first.digest


def test_an_unknown_kind_is_refused():
    spec = registry.registry().get(ProtocolSpec, "shapes/v1-1k")
    with pytest.raises(ValueError, match="support_kind"):
        attrs.evolve(spec, support_kind="line")


def test_an_export_holds_the_weaker_supports(tmp_path):
    data = build.protocol_dataset("shapes/v1-1k-box", images_per_split=120)
    spec = registry.registry().get(ProtocolSpec, "shapes/v1-1k-box")
    manifest: Manifest = build_manifest(spec, data, fold=0, shots=1, limit=5)
    content = json.loads(export_episodes(manifest, data, tmp_path).read_text())
    assert content["support_kind"] == "box"
    for episode, line in zip(manifest.episodes, content["episodes"], strict=True):
        (key,), (support,) = episode.supports(), line["supports"]
        with Image.open(tmp_path / support["mask"]) as picture:
            written = torch.from_numpy(numpy.array(picture))
        assert torch.equal(written == 255, weaker(data.mask(*key), "box", *key) == 1)
