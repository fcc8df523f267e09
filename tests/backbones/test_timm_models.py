"""Encoders of timm run step by step, compared with torchvision and timm's own forward."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from fssbench.backbones.backbone import WeightsInfo
from fssbench.backbones.stepped import ModuleBackbone, ResNetBackbone
from fssbench.backbones.timm_any import encoder
from fssbench.backbones.timm_models import (
    FeatureBackbone,
    SwinBackbone,
    resnet,
    swin,
    vgg,
)
from fssbench.errors import FssbenchError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RESNET50 = {"name": "resnet50", "tag": "resnet50.tv_in1k"}
VGG16 = {"name": "vgg16", "tag": "vgg16.tv_in1k"}
DINOV2_S = {"name": "dinov2-s", "tag": "vit_small_patch14_dinov2.lvd142m"}
SWIN_B = {
    "name": "swin-b",
    "tag": "swin_base_patch4_window12_384.ms_in22k_ft_in1k",
}


def wrap(family: type[ModuleBackbone], model: nn.Module, multiple: int) -> ModuleBackbone:
    return family(
        model,
        name="stand-in",
        image_size=64,
        multiple=multiple,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        weights=WeightsInfo(source="random"),
    ).freeze()


def small_resnet() -> ResNet:
    return ResNet(BasicBlock, (1, 2, 1, 1), num_classes=0, channels=(8, 8, 16, 16))


def small_swin(size: int = 64) -> SwinTransformer:
    return SwinTransformer(
        img_size=size,
        window_size=4,
        embed_dim=16,
        depths=(2, 2, 2),
        num_heads=(1, 2, 4),
        strict_img_size=False,
    )


def stir(model: nn.Module) -> nn.Module:
    """Draw statistics of batch norms, and non-zero weights of residual branches."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.2, 0.2, generator=generator)
    return model.eval()


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    return (images - mean) / std


def outputs(model: nn.Module, names: list[str], images: Tensor) -> dict[str, Tensor]:
    """Return the outputs of some modules in a plain forward pass."""
    found: dict[str, Tensor] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output.clone()})
        )
    with torch.no_grad():
        model(images)
    return found


def test_resnet_is_torchvisions(tmp_path: Path) -> None:
    reference = stir(torchvision.models.resnet50())
    torch.save(reference.state_dict(), tmp_path / "resnet50.pth")
    backbone = resnet(weights=str(tmp_path / "resnet50.pth"), **RESNET50)
    images = torch.rand(1, 3, 64, 96)
    features = backbone(images, list(backbone.layers))
    expected = outputs(reference, list(backbone.layers), normalised(images))
    assert expected
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name], rtol=1e-4, atol=1e-4)


def test_vgg_is_torchvisions(tmp_path: Path) -> None:
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    reference = nn.Sequential(OrderedDict(features=layers))  # all but its huge classifier
    torch.save(reference.state_dict(), tmp_path / "vgg16.pth")
    backbone = vgg(weights=str(tmp_path / "vgg16.pth"), **VGG16)
    for module in reference.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    images = torch.rand(1, 3, 32, 48)
    convolutions = [f"features.{int(name.split('.')[1]) - 1}" for name in backbone.layers]
    expected = outputs(reference.eval(), [*backbone.layers, *convolutions], normalised(images))
    features = backbone(images, [*backbone.layers, *(f"{name}:pre" for name in backbone.layers)])
    for name, convolution in zip(backbone.layers, convolutions, strict=True):
        torch.testing.assert_close(features[name], expected[name])
        torch.testing.assert_close(features[f"{name}:pre"], expected[convolution])


def test_vit_is_timms_without_prefix_tokens() -> None:
    backbone = encoder(weights="random", **DINOV2_S)
    images = torch.rand(2, 3, 42, 56)
    features = backbone(images, list(backbone.layers))
    blocks = backbone.model.forward_intermediates(normalised(images), intermediates_only=True)
    for index, block in enumerate(blocks):
        torch.testing.assert_close(features[f"blocks.{index}"], block)
    tokens = backbone.model.forward_features(normalised(images))
    assert tokens.shape[1] == 1 + 3 * 4
    torch.testing.assert_close(features["norm"].flatten(2).transpose(1, 2), tokens[:, 1:])


def test_any_block_can_be_had_after_the_final_norm() -> None:
    """DINOv2's own `get_intermediate_layers` norms every block that it returns."""
    backbone = encoder(weights="random", **DINOV2_S)
    images = torch.rand(1, 3, 42, 56)
    names = ["blocks.9:norm", "blocks.11:norm"]
    normed = backbone.model.forward_intermediates(
        normalised(images), indices=[9, 11], norm=True, intermediates_only=True
    )
    features = backbone(images, [*names, "norm"])
    for name, expected in zip(names, normed, strict=True):
        torch.testing.assert_close(features[name], expected)
    assert torch.equal(features["blocks.11:norm"], features["norm"])
    with pytest.raises(FssbenchError, match="no 'layer1.0:norm'"):
        wrap(ResNetBackbone, small_resnet(), 32)(images, ["layer1.0:norm"])


def test_positions_by_dinov2s_own_rule() -> None:
    """Bicubic by hand at one token: without antialiasing, and scaled by a tenth more."""
    backbone = encoder(weights="random", **DINOV2_S)
    own = backbone.model
    nn.init.normal_(own.pos_embed)
    images = torch.rand(1, 3, 126, 126)
    whole = torch.rand(1, 3, 518, 518)

    def first(images: torch.Tensor, rule: str) -> torch.Tensor:
        backbone.positions = rule
        with backbone._positions():
            tokens: torch.Tensor = own._pos_embed(own.patch_embed(images))
        return tokens

    ours, timms = first(images, "dinov2"), first(images, "timm")
    torch.testing.assert_close(ours[:, 0], timms[:, 0])
    assert (ours - timms).abs().mean() > 0.05
    grid = own.pos_embed[0, 1:].unflatten(0, (37, 37)).double()
    centre = (0 + 0.5) * 37 / 9.1 - 0.5  # of the first of nine positions, in the own grid

    def cubic(x: float, a: float = -0.75) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * (x**3 - 5 * x**2 + 8 * x - 4)

    weights = {n: cubic(centre - n) for n in range(int(centre) - 1, int(centre) + 3)}
    expected = sum(a * b * grid[y, x] for y, a in weights.items() for x, b in weights.items())
    found = ours[0, 1] - own.patch_embed(images)[0, 0, 0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(first(whole, "dinov2"), first(whole, "timm"))


def test_prefix_tokens_are_dropped_whatever_their_number() -> None:
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=1,
        num_heads=2,
        num_classes=0,
        reg_tokens=4,
        dynamic_img_size=True,
    )
    backbone = wrap(FeatureBackbone, model, 8)
    images = torch.rand(1, 3, 16, 32)
    tokens = backbone.model.forward_features(images)
    assert tokens.shape[1] == 5 + 2 * 4
    feature = backbone(images, ["norm"])["norm"]
    torch.testing.assert_close(feature[0, :, 1, 3], tokens[0, -1])
    torch.testing.assert_close(feature[0, :, 0, 1], tokens[0, 6])


@pytest.mark.parametrize("name", ["layer1.0", "layer2.1", "layer4.0"])
def test_before_the_last_relu(name: str) -> None:
    backbone = wrap(ResNetBackbone, stir(small_resnet()), 32)
    images = torch.rand(1, 3, 64, 64)
    both = backbone(images, [f"{name}:pre", name])
    assert (both[f"{name}:pre"] < 0).any()
    assert torch.equal(both[f"{name}:pre"].relu(), both[name])
    # Other or deeper layers change nothing: no ReLU works in place on the feature.
    assert torch.equal(backbone(images, [f"{name}:pre"])[f"{name}:pre"], both[f"{name}:pre"])
    everything = backbone(images, [*backbone.layers, f"{name}:pre"])
    assert torch.equal(everything[f"{name}:pre"], both[f"{name}:pre"])
    assert torch.equal(everything[name], both[name])


def test_features_keep_their_values_while_the_walk_goes_on() -> None:
    backbone = wrap(ResNetBackbone, stir(small_resnet()), 32)
    images = torch.rand(1, 3, 64, 64)
    all_at_once = backbone(images, list(backbone.layers))
    for name, feature in all_at_once.items():
        assert torch.equal(backbone(images, [name])[name], feature), name


def test_images_are_left_alone() -> None:
    backbone = wrap(ResNetBackbone, small_resnet(), 32)
    images = torch.rand(1, 3, 32, 32)
    before = images.clone()
    backbone(images, ["layer4.0"])
    assert torch.equal(images, before)


def test_no_deeper_block_runs_than_was_asked_for() -> None:
    backbone = wrap(ResNetBackbone, small_resnet(), 32)
    ran = []
    for name in ("layer2.0", "layer2.1", "layer3.0", "layer4.0"):
        backbone.model.get_submodule(name).register_forward_hook(
            lambda *_, name=name: ran.append(name)
        )
    backbone(torch.rand(1, 3, 32, 32), ["layer2.0:pre", "layer1.0"])
    assert ran == ["layer2.0"]
    assert backbone(torch.rand(1, 3, 32, 32), []) == {}
    assert ran == ["layer2.0"]


def test_a_failing_block_leaves_no_trace() -> None:
    backbone = wrap(ResNetBackbone, small_resnet(), 32)
    images = torch.rand(1, 3, 32, 32)
    expected = backbone(images, ["layer4.0"])["layer4.0"]

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = backbone.model.layer3.register_forward_hook(fail)
    backbone.model.layer3[0].register_forward_hook(fail)
    handle.remove()
    with pytest.raises(RuntimeError):
        backbone(images, ["layer1.0", "layer4.0"])
    backbone.model.layer3[0]._forward_hooks.clear()
    assert torch.equal(backbone(images, ["layer4.0"])["layer4.0"], expected)


def test_a_backbone_compiles_in_one_piece() -> None:
    backbone = wrap(ResNetBackbone, stir(small_resnet()), 32)
    images, layers = torch.rand(1, 3, 32, 32), ["layer2.1:pre", "layer4.0"]
    compiled = torch.compile(backbone, backend="eager", fullgraph=True)
    for name, feature in compiled(images, layers).items():
        torch.testing.assert_close(feature, backbone(images, layers)[name])


def test_mean_and_std_are_applied_once() -> None:
    backbone = resnet(weights="random", **RESNET50)
    seen: list[Tensor] = []
    backbone.model.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.rand(1, 3, 32, 32)
    backbone(images, ["layer1.0"])
    torch.testing.assert_close(seen[0], normalised(images))
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor(IMAGENET[0]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor(IMAGENET[1]))


def test_swin_is_timms_where_windows_fit() -> None:
    backbone = wrap(SwinBackbone, small_swin(), 16)
    images = torch.rand(2, 3, 64, 64)
    stages = backbone.model.forward_intermediates(images, intermediates_only=True)
    features = backbone(images, [f"layers.{stage}.blocks.1" for stage in range(3)])
    for feature, stage in zip(features.values(), stages, strict=True):
        torch.testing.assert_close(feature, stage)


def test_swin_windows_do_not_cross_the_seam_of_padded_maps() -> None:
    # 10 x 6 tokens in windows of 4: padded to 12 x 8, then shifted by 2.
    backbone = wrap(SwinBackbone, small_swin(), 4)
    images = torch.rand(1, 3, 40, 24)
    changed = images.clone()
    changed[:, :, :4, :4] = 1 - changed[:, :, :4, :4]  # the token in the corner
    name = "layers.0.blocks.1"
    difference = (backbone(images, [name])[name] - backbone(changed, [name])[name]).abs().sum(1)[0]
    # Plain windows carry it to 4 x 4 tokens, shifted ones to 6 x 6; the far side is unaffected.
    assert (difference[:6, :6] > 0).all()
    assert (difference[6:] == 0).all()
    assert (difference[:, 6:] == 0).all()


def test_swin_takes_images_of_other_sizes() -> None:
    backbone = swin(weights="random", **SWIN_B)
    features = backbone(torch.rand(1, 3, 128, 160), ["layers.0.blocks.1", "layers.3.blocks.1"])
    assert features["layers.0.blocks.1"].shape == (1, 128, 32, 40)
    assert features["layers.3.blocks.1"].shape == (1, 1024, 4, 5)
    assert all(feature.isfinite().all() for feature in features.values())
    assert backbone.model.layers[3].blocks[1].shift_size == (0, 0)  # as it was trained, at 384
