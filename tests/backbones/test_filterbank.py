"""The channels of the filter bank."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fssbench.backbones.backbone import WeightsInfo
from fssbench.backbones.filterbank import ORIENTATIONS, filterbank
from fssbench.errors import FssbenchError

LAYERS = ("scale1", "scale2", "scale4", "all")


def grating(angle: float, wavelength: float, contrast: float = 1.0, phase: float = 0.0) -> Tensor:
    axis = torch.arange(96.0)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    wave = torch.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / wavelength + phase)
    return (0.5 + 0.5 * contrast * wave).expand(1, 3, 96, 96)


def centre(images: Tensor, layer: str) -> Tensor:
    feature = filterbank(weights="pretrained")(images, [layer])[layer]
    return feature[0, :, feature.shape[2] // 2, feature.shape[3] // 2]


@pytest.mark.parametrize("index", range(ORIENTATIONS))
@pytest.mark.parametrize(("layer", "wavelength"), [("scale1", 5), ("scale2", 10), ("scale4", 20)])
def test_each_orientation_has_its_channel(index: int, layer: str, wavelength: float) -> None:
    feature = centre(grating(math.pi * index / ORIENTATIONS, wavelength), layer)
    assert feature[4:].argmax() == index
    assert feature[4:].sum() == pytest.approx(0, abs=1e-3)


def test_orientation_does_not_depend_on_phase_and_little_on_contrast() -> None:
    reference = centre(grating(0.0, 5.0), "scale1")[4:]
    moved = centre(grating(0.0, 5.0, phase=1.0), "scale1")[4:]
    pale = centre(grating(0.0, 5.0, contrast=0.3), "scale1")[4:]
    torch.testing.assert_close(moved, reference, rtol=0.05, atol=0.05)
    torch.testing.assert_close(pale, reference, rtol=0.25, atol=0.25)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_plain_image_has_colour_only(layer: str) -> None:
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    feature = filterbank(weights="pretrained")(red, [layer])[layer]
    expected = torch.tensor([-1 / 3, 2.0, -1.0] + [0.0] * 7).repeat(feature.shape[1] // 10)
    torch.testing.assert_close(
        feature, expected.view(1, -1, 1, 1).expand_as(feature), rtol=0, atol=0.02
    )


def test_all_holds_the_three_scales_at_stride_8() -> None:
    images = torch.rand(1, 3, 64, 96)
    features = filterbank(weights="pretrained")(images, LAYERS)
    assert features["all"].shape == (1, 30, 8, 12)
    assert torch.equal(features["all"][:, 10:20], features["scale2"])


def test_it_has_no_weights() -> None:
    backbone = filterbank(weights="pretrained")
    assert backbone.weights == WeightsInfo(source="none")
    assert backbone.state_dict() == {}
    assert not list(backbone.parameters())
    for given in ("random", "weights.pth"):
        with pytest.raises(FssbenchError, match="filterbank has no weights"):
            filterbank(weights=given)
