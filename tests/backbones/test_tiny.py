"""The shipped encoders: sizes, strides and weight files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import fssbench.backbones.tiny
from fssbench.backbones.tiny import TinyResNet, tiny_vit

SHIPPED = Path(fssbench.backbones.tiny.__file__).parent / "weights_shipped"
BUILDERS = {"tiny-resnet": TinyResNet, "tiny-vit": tiny_vit}


@pytest.mark.parametrize(("build", "limit"), [(TinyResNet, 1_500_000), (tiny_vit, 2_500_000)])
def test_stays_small(build: Callable[[], nn.Module], limit: int) -> None:
    assert sum(parameter.numel() for parameter in build().parameters()) <= limit


@pytest.mark.parametrize("size", [(160, 160), (96, 224)])
def test_resnet_stages_have_strides_4_to_32(size: tuple[int, int]) -> None:
    model = TinyResNet().eval()
    x = torch.zeros(1, 3, *size)
    x = model.maxpool(model.act1(model.bn1(model.conv1(x))))
    for name, channels, stride in (
        ("layer1", 32, 4),
        ("layer2", 64, 8),
        ("layer3", 112, 16),
        ("layer4", 128, 32),
    ):
        stage = model.get_submodule(name)
        assert len(list(stage.children())) >= 2
        x = stage(x)
        assert x.shape == (1, channels, size[0] // stride, size[1] // stride)
    assert model(torch.zeros(1, 3, *size)).shape == x.shape  # no head, no pooling


@pytest.mark.parametrize("size", [(160, 160), (96, 224)])
def test_vit_has_stride_8_at_any_size(size: tuple[int, int]) -> None:
    model = tiny_vit().eval()
    tokens = model.forward_features(torch.zeros(1, 3, *size))
    assert tokens.shape == (1, 1 + (size[0] // 8) * (size[1] // 8), 128)
    assert len(model.blocks) == 5


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_are_shipped_and_fit(name: str) -> None:
    file = SHIPPED / f"{name}.safetensors"
    assert file.stat().st_size <= 6_000_000
    model = BUILDERS[name]()
    model.load_state_dict(load_file(file), strict=True)
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all()
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    assert {"trained_on", "objective", "input", "command"} <= set(notes)


@pytest.mark.parametrize("name", BUILDERS)
def test_shipped_weights_see_more_than_random_ones(name: str) -> None:
    """Features of an image are finite and differ between positions."""
    model = BUILDERS[name]()
    model.load_state_dict(load_file(SHIPPED / f"{name}.safetensors"))
    image = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        features = model.eval()(image)
    assert features.isfinite().all()
    assert features.std() > 0.01
