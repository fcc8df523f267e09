"""Names, shapes, strides, sizes and freezing of every registered backbone."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import subprocess
import sys
import time

import pytest
import torch

from fssbench import build
from fssbench.backbones import fssbench_backbones
from fssbench.backbones.backbone import Backbone
from fssbench.build import describe
from fssbench.errors import FssbenchError
from fssbench.registry import load

SPECS = {spec.name: spec for spec in fssbench_backbones() if spec.features}
SLOW = {
    "swin-b", "swin-b-in1k", "dinov2-b", "dinov2-l", "resnet101", "resnet101_a1h", "resnet101-psp",
}  # fmt: skip
SLOW |= {name for name in SPECS if name.startswith(("sam", "convnext")) or name.endswith("-reg")}
QUICK = sorted(set(SPECS) - SLOW - {"dinov3-b", "dinov3-l"})
COUNTS = {
    "resnet50": 16,
    "resnet101": 33,
    "resnet50_a1h": 16,
    "resnet101_a1h": 33,
    "vgg16": 13,
    "resnet50-psp": 5,
    "resnet101-psp": 5,
    "vgg16-bn": 5,
    "swin-b": 24,
    "swin-b-in1k": 24,
    "dinov2-s": 13,
    "dinov2-b": 13,
    "dinov2-l": 25,
    "dinov2-s-reg": 13,
    "dinov2-b-reg": 13,
    "dinov2-l-reg": 25,
    "dinov2-g-reg": 41,
    "dinov3-s": 13,
    "dinov3-b": 13,
    "dinov3-l": 25,
    "sam2-t": 4,
    "sam2-s": 4,
    "sam2-b": 4,
    "sam2-l": 4,
    "convnext-t": 4,
    "convnext-s": 4,
    "convnext-b": 4,
    "convnext-l": 4,
    "sam-vit-b": 13,
    "sam-vit-l": 25,
    "sam-vit-h": 33,
    "tiny-sam": 5,
    "mobilenetv2": 18,
    "filterbank": 4,
    "tiny-resnet": 10,
    "tiny-vit": 6,
}


def unit(backbone: Backbone) -> int:
    """Return an image side that every stride divides."""
    return max(backbone.info.multiple, *(layer.stride for layer in backbone.layers.values()))


@functools.cache
def make(name: str) -> Backbone:
    weights = "pretrained" if name == "filterbank" else "random"
    backbone: Backbone = load(SPECS[name])(weights=weights, **SPECS[name].arguments)
    return backbone


def check_shapes(backbone: Backbone, images: torch.Tensor) -> dict[str, torch.Tensor]:
    names = list(backbone.layers)
    names += [f"{name}:pre" for name, layer in backbone.layers.items() if layer.relu]
    features = backbone(images, names)
    assert list(features) == names
    for name, feature in features.items():
        layer = backbone.info.layer(name)
        expected = (len(images), layer.channels, *(s // layer.stride for s in images.shape[-2:]))
        assert feature.shape == expected, name
        assert feature.is_contiguous()
    return features


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_layer_has_the_shape_that_it_announces(name: str) -> None:
    spec = SPECS[name]
    with torch.device("meta"):
        backbone = load(spec)(weights="none", **spec.arguments)
        side = unit(backbone)
        check_shapes(backbone, torch.empty(2, 3, 2 * side, 3 * side))
    assert len(backbone.layers) == COUNTS[name]
    assert backbone.info.name == name
    assert backbone.info.image_size % backbone.info.multiple == 0


@pytest.mark.parametrize("name", QUICK)
def test_features_are_finite_and_vary(name: str) -> None:
    backbone = make(name)
    side = unit(backbone)
    features = check_shapes(backbone, torch.rand(2, 3, 3 * side, 2 * side))
    for layer, feature in features.items():
        assert feature.isfinite().all(), layer
        assert feature.std() > 0, layer


@pytest.mark.parametrize("name", QUICK)
def test_an_image_has_the_same_features_alone_and_in_a_batch(name: str) -> None:
    backbone = make(name)
    images = torch.rand(2, 3, 2 * unit(backbone), 2 * unit(backbone))
    last = backbone.info.last_layer
    together = backbone(images, [last])[last]
    alone = backbone(images[1:], [last])[last]
    torch.testing.assert_close(alone, together[1:], rtol=1e-3, atol=1e-3)


def test_layer_names_are_those_of_timm() -> None:
    def names(backbone: str) -> list[str]:
        return list(describe(SPECS[backbone]).layers)

    assert names("resnet50")[0] == "layer1.0"
    assert names("resnet50")[-1] == "layer4.2"
    assert names("swin-b")[0] == "layers.0.blocks.0"
    assert names("swin-b")[-1] == "layers.3.blocks.1"
    assert names("dinov2-s")[0] == "blocks.0"
    assert names("dinov2-s")[-2:] == ["blocks.11", "norm"]
    assert names("vgg16")[0] == "features.1"
    assert names("vgg16")[-1] == "features.29"
    assert names("mobilenetv2")[0] == "blocks.0.0"
    assert names("mobilenetv2")[-1] == "conv_head"
    assert names("tiny-resnet")[-1] == "layer4.1"
    assert names("tiny-vit")[0] == "blocks.0"


def test_strides_of_the_stages() -> None:
    layers = describe(SPECS["resnet50"]).layers
    assert [layers[f"layer{stage}.0"].stride for stage in (1, 2, 3, 4)] == [4, 8, 16, 32]
    layers = describe(SPECS["mobilenetv2"]).layers
    assert [layers[f"blocks.{s}.0"].stride for s in range(7)] == [2, 4, 8, 16, 16, 32, 32]
    layers = describe(SPECS["vgg16"]).layers
    assert [layer.stride for layer in layers.values()] == [1] * 2 + [2] * 2 + [4] * 3 + [8] * 3 + [
        16
    ] * 3
    assert describe(SPECS["dinov2-l"]).layers["blocks.23"].channels == 1024


@pytest.mark.parametrize("name", sorted(SPECS))
def test_describing_is_quick_and_equals_the_encoder(name: str) -> None:
    describe(SPECS["tiny-resnet"])  # imports timm
    start = time.process_time()
    info = describe(SPECS[name])
    # Up to 1 s for a model of 1 billion parameters, with room for busy machines.
    assert time.process_time() - start < 3.0
    if name in QUICK:
        assert info == make(name).info


@pytest.mark.parametrize("name", ["resnet50", "dinov2-s", "filterbank", "tiny-vit"])
def test_a_backbone_is_frozen_for_good(name: str) -> None:
    backbone = make(name)
    parent = torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    side = backbone.info.multiple
    feature = backbone(torch.rand(1, 3, side, side), [backbone.info.last_layer])
    assert not feature[backbone.info.last_layer].requires_grad


@pytest.mark.parametrize("name", ["tiny-resnet", "vgg16", "mobilenetv2", "tiny-vit", "filterbank"])
def test_copies_are_independent(name: str) -> None:
    backbone = make(name)
    images = torch.rand(1, 3, 2 * unit(backbone), 2 * unit(backbone))
    last = backbone.info.last_layer
    expected = backbone(images, [last])[last]
    for copied in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        torch.testing.assert_close(copied(images, [last])[last], expected, rtol=0, atol=0)
        for parameter in copied.parameters():
            parameter.zero_()
        torch.testing.assert_close(backbone(images, [last])[last], expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "mobilenetv2", "dinov2-s", "filterbank"])
def test_gradients_reach_the_images(name: str) -> None:
    backbone = make(name)
    side = 2 * unit(backbone)
    images = torch.full((1, 3, side, side), 0.5).requires_grad_()
    sum(feature.sum() for feature in backbone(images, list(backbone.layers)).values()).backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_a_size_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(FssbenchError, match="37 x 42 pixels; make both sides multiples of 14"):
        make("dinov2-s")(torch.rand(1, 3, 37, 42), ["blocks.0"])
    with pytest.raises(FssbenchError, match="multiples of 32"):
        make("tiny-resnet")(torch.rand(1, 3, 32, 40), ["layer1.0"])
    with pytest.raises(FssbenchError, match="multiples of 16"):
        make("filterbank")(torch.rand(1, 3, 0, 16), ["all"])


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(FssbenchError, match=r"no layer 'layer4.7'; did you mean 'layer4\.\d"):
        make("tiny-resnet")(torch.rand(1, 3, 32, 32), ["layer4.7"])
    with pytest.raises(FssbenchError, match="has no layer 'nothing:pre'"):
        make("tiny-resnet")(torch.rand(1, 3, 32, 32), ["nothing:pre"])


@pytest.mark.parametrize(
    ("name", "layer"),
    [("tiny-vit", "blocks.0"), ("mobilenetv2", "conv_head"), ("filterbank", "all")],
)
def test_there_is_nothing_before_a_relu_that_is_not_there(name: str, layer: str) -> None:
    backbone = make(name)
    side = backbone.info.multiple
    with pytest.raises(FssbenchError, match="does not end in a ReLU"):
        backbone(torch.rand(1, 3, side, side), [f"{layer}:pre"])


def test_listing_backbones_imports_nothing_heavy() -> None:
    code = (
        "import sys, fssbench.backbones as b; assert len(list(b.fssbench_backbones())) > 9; "
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "cells"), [("resnet50", math.ceil), ("mobilenetv2", math.ceil), ("vgg16", math.floor)]
)
@pytest.mark.parametrize("size", [400, 65])
def test_convolutional_encoders_take_any_side(name, cells, size):
    """HSNet uses 400, no multiple of ResNet's largest stride. VGG's pooling rounds down."""
    encoder = build.backbone(name, "random")
    layers = list(encoder.info.layers)
    with torch.no_grad():
        for layer, maps in encoder(torch.rand(1, 3, size, size), layers).items():
            side = cells(size / encoder.info.layer(layer).stride)
            assert maps.shape[-2:] == (side, side), layer
