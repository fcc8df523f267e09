"""The matcher on small encoders."""

from __future__ import annotations

import pytest
import torch

import fssbench
from fssbench import BackboneInfo, EpisodeImages, FssbenchError, LayerInfo
from fssbench.testing import ImageMatcherConformance
from fssbench_insid3.model import default_components, default_size

RUN = {"svd_components": 16, "tau": 0.9}


@pytest.fixture(scope="module")
def matcher():
    return fssbench.image_matcher("insid3", {"features": "tiny-vit"}, **RUN)


def scene(colour: str, top: int, left: int, size: tuple[int, int] = (120, 150)):
    """A grey image with a coloured square of 60 pixels, and its mask."""
    image = torch.full((3, *size), 110, dtype=torch.uint8)
    image += torch.randint(0, 20, image.shape, generator=torch.Generator().manual_seed(top)).byte()
    mask = torch.zeros(size, dtype=torch.uint8)
    mask[top : top + 60, left : left + 60] = 1
    image[:, mask == 1] = 20
    image["rgb".index(colour), mask == 1] = 220
    return image, mask


def episode(shots: int = 1, mask=None) -> EpisodeImages:
    images, masks = zip(*(scene("r", 20 + 5 * i, 10 + 15 * i) for i in range(shots)), strict=True)
    query, _ = scene("r", 30, 70)
    return EpisodeImages(query=query, images=images, masks=masks if mask is None else (mask,))


@pytest.mark.parametrize("shots", [1, 2, 3])
def test_it_segments_the_object_of_the_supports(matcher, shots):
    logits = matcher.predict(episode(shots))
    _, truth = scene("r", 30, 70)
    assert logits.shape == truth.shape
    assert set(logits.unique().tolist()) == {-0.5, 0.5}
    mask = logits > 0
    assert (mask & (truth == 1)).sum() > 0.8 * (mask | (truth == 1)).sum()


def test_it_has_no_parameters_and_default_size_is_the_encoders(matcher):
    assert not list(matcher.parameters())
    assert not list(matcher.buffers())
    assert matcher.size == 160
    assert matcher.layer == "norm"


@pytest.mark.parametrize(
    ("stride", "multiple", "size"), [(16, 16, 1024), (14, 14, 518), (16, 48, 518), (8, 8, 518)]
)
def test_encoders_of_stride_16_get_1024_pixels(stride, multiple, size):
    layers = {"last": LayerInfo(384, stride)}
    info = BackboneInfo(name="any", layers=layers, image_size=518, multiple=multiple)
    assert default_size(info) == size


def test_options_give_the_size(matcher):
    other = fssbench.image_matcher("insid3", {"features": "tiny-vit"}, image_size=80, **RUN)
    assert other.maps(episode())["candidates"].shape == (10, 10)
    assert matcher.maps(episode())["candidates"].shape == (20, 20)


def test_results_do_not_depend_on_earlier_episodes(matcher):
    first = matcher.predict(episode(2))
    matcher.predict(episode(1))
    fresh = fssbench.image_matcher("insid3", {"features": "tiny-vit"}, **RUN)
    assert torch.equal(first, matcher.predict(episode(2)))
    assert torch.equal(first, fresh.predict(episode(2)))


def test_the_black_image_is_encoded_once():
    matcher = fssbench.image_matcher("insid3", {"features": "tiny-vit"}, **RUN)
    seen = []
    matcher.encoder.module.register_forward_pre_hook(
        lambda _, inputs: seen.append(bool(inputs[0].any()))
    )
    matcher.predict(episode())
    matcher.predict(episode())
    assert seen.count(False) == 1


@pytest.mark.parametrize("value", [0, 255])
def test_supports_without_foreground_give_an_empty_mask(matcher, value):
    logits = matcher.predict(episode(mask=torch.full((120, 150), value, dtype=torch.uint8)))
    assert (logits == -0.5).all()


def test_a_support_of_one_pixel_does_not_fail(matcher):
    """The authors' code ends with an IndexError where resizing removes the object."""
    image, mask = scene("r", 20, 20, (400, 500))
    mask.zero_()
    mask[399, 499] = 1
    query, _ = scene("r", 30, 70)
    logits = matcher.predict(EpisodeImages(query=query, images=(image,), masks=(mask,)))
    assert logits.shape == query.shape[1:]


@pytest.mark.parametrize("components", [128, 500])
def test_as_many_components_as_channels_are_refused(components):
    with pytest.raises(FssbenchError, match=f"={components} .* has 128 channels .* at most 127"):
        fssbench.image_matcher("insid3", {"features": "tiny-vit"}, svd_components=components)


@pytest.mark.parametrize(("size", "components"), [(16, 4), (8, None)])
def test_too_few_positions_are_refused(size, components):
    options = {"image_size": size, "svd_components": components}
    with pytest.raises(FssbenchError, match=rf"\d positions at {size} pixels; give at most"):
        fssbench.image_matcher("insid3", {"features": "tiny-vit"}, **options)


def test_components_are_500_or_half_of_the_channels_or_positions():
    assert [default_components(most) for most in (1024, 501, 500, 384)] == [500, 500, 250, 192]
    assert fssbench.image_matcher("insid3", {"features": "tiny-vit"}).components == 64
    small = fssbench.image_matcher("insid3", {"features": "tiny-vit"}, image_size=80)
    assert small.components == 50


def test_encoders_without_layers_are_refused():
    with pytest.raises(FssbenchError, match="--encoder features=promptable-tiny-sam: .* no layers"):
        fssbench.image_matcher("insid3", {"features": "promptable-tiny-sam"}, "random")


@pytest.mark.parametrize("option", [{"tau": 2.0}, {"merge_threshold": -0.1}, {"image_size": 0}])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(FssbenchError, match=next(iter(option))):
        fssbench.image_matcher("insid3", {"features": "tiny-vit"}, **option)


class TestInsid3(ImageMatcherConformance):
    matcher = "insid3"
