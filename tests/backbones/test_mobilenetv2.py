"""MobileNetV2, also with TensorFlow's 8-bit weights."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch.nn import functional as F

from fssbench.backbones.backbone import Backbone
from fssbench.backbones.mobilenetv2 import mobilenetv2
from fssbench.errors import FssbenchError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILE = DATA / "weights_found" / "mobilenet_v2_imagenet_uint8.npz"
IMAGES = DATA / "voc_mini" / "VOC2012" / "JPEGImages"
needs_file = pytest.mark.skipif(not FILE.exists(), reason="the 8-bit MobileNetV2 is not here")
needs_images = pytest.mark.skipif(not IMAGES.exists(), reason="voc_mini is not here")


def quantised() -> dict[str, np.ndarray]:
    return dict(_quantised())


@functools.cache
def _quantised() -> dict[str, np.ndarray]:
    """Return a file in the 8-bit format with random values of the float encoder's shapes."""
    state = mobilenetv2(weights="random").model.state_dict()
    generator = np.random.default_rng(0)
    names = ["features.0", "features.1.depthwise", "features.1.project"]
    for block in range(2, 18):
        names += [f"features.{block}.{part}" for part in ("expand", "depthwise", "project")]
    shapes = [tuple(value.shape) for value in state.values() if value.ndim == 4]
    arrays: dict[str, np.ndarray] = {}
    for name, shape in zip([*names, "features.18"], shapes, strict=True):
        spread = np.sqrt(2 / np.prod(shape[1:]))
        arrays[f"{name}.weight_q"] = generator.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{name}.scale"] = np.float32(spread / 74)
        arrays[f"{name}.zero_point"] = np.int32(127)
        arrays[f"{name}.bias"] = generator.normal(size=shape[:1]).astype(np.float32)
        arrays[f"{name}.stride"] = np.int32(1)
    arrays["classifier.weight_q"] = np.zeros((1001, 1280, 1, 1), np.uint8)
    return arrays


def test_8_bit_weights_are_the_formula_of_the_format(tmp_path: Path) -> None:
    arrays = quantised()
    np.savez(tmp_path / "net.npz", **arrays)
    backbone = mobilenetv2(weights=str(tmp_path / "net.npz"))
    assert torch.equal(backbone.mean, torch.full((3, 1, 1), 0.5))
    assert torch.equal(backbone.std, torch.full((3, 1, 1), 0.5))

    def parts(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        weight = (arrays[f"{name}.weight_q"].astype(np.float64) - 127) * arrays[f"{name}.scale"]
        return torch.from_numpy(weight).float(), torch.from_numpy(arrays[f"{name}.bias"])

    images = torch.rand(1, 3, 64, 96)
    # TensorFlow pads an even side 0 before and 1 after.
    x = F.conv2d(F.pad(images * 2 - 1, (0, 1, 0, 1)), *parts("features.0"), stride=2)
    x = x.clamp(0, 6)
    x = F.conv2d(x, *parts("features.1.depthwise"), padding=1, groups=32).clamp(0, 6)
    x = F.conv2d(x, *parts("features.1.project"))
    torch.testing.assert_close(
        backbone(images, ["blocks.0.0"])["blocks.0.0"], x, rtol=1e-4, atol=1e-4
    )
    y = F.conv2d(x, *parts("features.2.expand")).clamp(0, 6)
    y = F.conv2d(F.pad(y, (0, 1, 0, 1)), *parts("features.2.depthwise"), stride=2, groups=96)
    y = F.conv2d(y.clamp(0, 6), *parts("features.2.project"))
    torch.testing.assert_close(
        backbone(images, ["blocks.1.0"])["blocks.1.0"], y, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("features.9.expand.weight_q", np.zeros((7, 64, 1, 1), np.uint8), "features.9.expand is"),
        ("features.9.expand.bias", np.zeros(7, np.float32), "features.9.expand is not uint8"),
        ("features.9.expand.weight_q", np.zeros((384, 64, 1, 1), np.int16), "is not uint8"),
        ("features.9.expand.scale", np.zeros(384, np.float32), "with one scale"),
        ("features.9.expand.bias", None, "network without features.9.expand.bias"),
        ("features.19.weight_q", np.zeros(3, np.uint8), "1 unexpected (features.19.weight_q)"),
    ],
)
def test_8_bit_files_that_are_wrong(
    name: str, value: np.ndarray | None, message: str, tmp_path: Path
) -> None:
    arrays = quantised()
    if value is None:
        del arrays[name]
    else:
        arrays[name] = value
    np.savez(tmp_path / "net.npz", **arrays)
    with pytest.raises(FssbenchError) as error:
        mobilenetv2(weights=str(tmp_path / "net.npz"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_brings_padding_and_colours_along(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", **quantised())
    first = mobilenetv2(weights=str(tmp_path / "net.npz"))
    tensors = {name.replace("model.", "backbone."): t for name, t in first.state_dict().items()}
    safetensors.torch.save_file(tensors, tmp_path / "last.safetensors")
    second = mobilenetv2(weights=str(tmp_path / "last.safetensors"))
    images = torch.rand(1, 3, 64, 96)
    assert torch.equal(second.mean, first.mean)
    assert torch.equal(second.std, first.std)
    assert torch.equal(
        second(images, ["conv_head"])["conv_head"], first(images, ["conv_head"])["conv_head"]
    )


def test_training_finds_no_statistics_to_update(tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", **quantised())
    modules = list(mobilenetv2(weights=str(tmp_path / "net.npz")).modules())
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in modules)
    modules = list(mobilenetv2(weights="random").modules())
    assert sum(isinstance(module, torch.nn.BatchNorm2d) for module in modules) == 52


@functools.cache
def real_network() -> Backbone:
    return mobilenetv2(weights=str(FILE))


@pytest.mark.realdata
@needs_file
@needs_images
@pytest.mark.parametrize(
    ("image", "label", "probability"),  # as measured with a NumPy forward pass of the network
    [
        ("2007_005689", 821, 1.00),  # steam locomotive
        ("2007_007688", 666, 0.96),  # moped
        ("2007_000663", 875, 0.81),  # trolleybus
        ("2011_002044", 163, 0.42),  # beagle
    ],
)
def test_the_real_network_classifies(image: str, label: int, probability: float) -> None:
    backbone = real_network()
    picture = Image.open(IMAGES / f"{image}.jpg").convert("RGB").resize((224, 224), 2)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    feature = backbone(pixels, ["conv_head"])["conv_head"].mean((2, 3))
    with np.load(FILE, allow_pickle=False) as arrays:
        zero, scale = float(arrays["classifier.zero_point"]), float(arrays["classifier.scale"])
        weight = (torch.from_numpy(arrays["classifier.weight_q"]).float() - zero) * scale
        logits = F.linear(feature, weight[:, :, 0, 0], torch.from_numpy(arrays["classifier.bias"]))
    probabilities = logits.softmax(1)[0]
    assert probabilities.argmax() == label
    assert float(probabilities[label]) == pytest.approx(probability, abs=0.006)
