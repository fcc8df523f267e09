"""The encoders of the PSPNet line: the authors' numbers, and all kinds of files."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_numbers import authors_state, picture, read_golden, region
from torch import Tensor, nn

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.errors import FssbenchError
from fssbench.specs import BackboneSpec

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
LAYERS = ["layer0", "layer1", "layer2", "layer3", "layer4"]
SIZE = 473


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """Return `resnet50-psp` from a file like the authors': the complete model, wrapped."""
    listing = GOLDEN / "weights_hdmnet_resnet50_1shot.tsv"
    if not listing.is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    path = tmp_path_factory.mktemp("official") / "best.pth"
    state = {f"module.{name}": tensor for name, tensor in authors_state(listing).items()}
    torch.save({"epoch": 7, "state_dict": state}, path)
    backbone = build.backbone("resnet50-psp", path)
    path.unlink()  # 200 MB
    return backbone


@pytest.fixture
def tiny_images() -> Tensor:
    return torch.rand(1, 3, 40, 33, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("which", ["query", "support"])
def test_features_are_those_of_the_authors(official: Backbone, which: str) -> None:
    golden = read_golden(GOLDEN, "hdmnet_resnet50_pascal_1shot.npz")
    run = golden.run
    if which == "query":
        images = picture(run["query_seed"], (1, 3, SIZE, SIZE))
    else:
        shots = picture(run["support_seed"], (1, run["shot"], 3, SIZE, SIZE))[0]
        inside = region(run["support_shapes"][0], SIZE) == 1
        images = torch.where(inside, shots, official.mean)  # the mean is 0 where it is normalised
    with torch.inference_mode():
        features = official(images, LAYERS)
    for position, feature in enumerate(features.values()):
        stats = golden.arrays[f"{which}_feat__stats"][position]
        assert list(feature.shape) == golden.arrays[f"{which}_feat__shape"][position].tolist()
        found, scale = feature.double().numpy(), stats[3]
        first = golden.arrays[f"{which}_feat__first8"][position]
        assert np.abs(found.ravel()[:8] - first).max() <= 1e-5 * scale
        own = [found.sum() / found.size, found.mean(), found.std(), np.abs(found).max(),
               found.min(), found.max()]  # fmt: skip
        stats[0] /= found.size
        assert np.abs(own - stats).max() <= 1e-5 * scale


@pytest.mark.parametrize(
    ("name", "sides"),
    [("resnet50-psp", (119, 119, 60, 60, 60)), ("vgg16-bn", (237, 119, 60, 30, 30))],
)
def test_any_size_is_taken_and_rounded_as_the_authors_do(name: str, sides: tuple[int, ...]) -> None:
    spec = registry.registry().get(BackboneSpec, name)
    with torch.device("meta"):
        made = registry.load(spec)(weights="none", **spec.arguments)
        features = made(torch.empty(1, 3, SIZE, SIZE), LAYERS)
    assert tuple(feature.shape[-1] for feature in features.values()) == sides
    assert made.info.last_layer == "layer4"


def test_dilation_reaches_the_first_block() -> None:
    model = build.backbone("resnet50-psp", "random").model
    for stage, dilation in (("layer1", 1), ("layer2", 1), ("layer3", 2), ("layer4", 4)):
        for block in model.get_submodule(stage):
            assert block.conv2.dilation == block.conv2.padding == (dilation, dilation)
    assert model.layer0[6].out_channels == 128


def stem_names(names: dict[str, str], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with other names of the stem, such as those of PSPNet or timm."""
    pattern = re.compile(r"layer0\.(\d+)")
    return {pattern.sub(lambda m: names[m[1]], name): value for name, value in state.items()}


PSPNET = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}
TIMM = {"0": "conv1.0", "1": "conv1.1", "3": "conv1.3", "4": "conv1.4", "6": "conv1.6", "7": "bn1"}


@pytest.mark.parametrize("names", [PSPNET, TIMM], ids=["pspnet", "timm"])
def test_resnet_files_with_other_names(
    names: dict[str, str], tiny_images: Tensor, tmp_path: Path
) -> None:
    backbone = build.backbone("resnet50-psp", "random")
    state = stem_names(names, dict(backbone.model.state_dict()))
    state["fc.weight"] = torch.zeros(1000, 2048)
    torch.save(state, tmp_path / "resnet50_v2.pth")
    loaded = build.backbone("resnet50-psp", tmp_path / "resnet50_v2.pth")
    for name, feature in backbone(tiny_images, LAYERS).items():
        assert torch.equal(loaded(tiny_images, [name])[name], feature)
    assert loaded.weights.source == "file"


def test_vgg_walks_as_the_plain_network_does(tiny_images: Tensor, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(5)
    plain = timm.create_model("vgg16_bn", num_classes=0, mlp_ratio=1 / 4096).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    torch.save(plain.state_dict(), tmp_path / "vgg16_bn.pth")
    backbone = build.backbone("vgg16-bn", tmp_path / "vgg16_bn.pth")
    staged = {**backbone.model.state_dict(), "ppm.features.0.1.weight": torch.zeros(1)}
    torch.save({"state_dict": staged}, tmp_path / "staged.pth")
    again = build.backbone("vgg16-bn", tmp_path / "staged.pth")
    x = (tiny_images - backbone.mean) / backbone.std
    found = backbone(tiny_images, [*LAYERS, "layer4:pre"])
    with torch.inference_mode():
        for name, end in zip(LAYERS, (7, 14, 24, 34, 43), strict=True):
            expected = plain.features[:end](x)
            torch.testing.assert_close(found[name], expected, rtol=0, atol=0)
            assert torch.equal(again(tiny_images, [name])[name], found[name])
        assert torch.equal(found["layer4:pre"], plain.features[:42](x))


def test_wrong_files_are_reported(tmp_path: Path) -> None:
    state = dict(build.backbone("resnet50", "random").model.state_dict())
    torch.save(state, tmp_path / "torchvision.pth")
    with pytest.raises(FssbenchError, match=r"torchvision.pth: not weights of resnet50-psp") as e:
        build.backbone("resnet50-psp", tmp_path / "torchvision.pth")
    assert "layer0.3.weight" in str(e.value)
    assert "\n" not in str(e.value)
    torch.save({"classifier.0.weight": torch.zeros(1), "features.50.weight": torch.zeros(1)},
               tmp_path / "other.pth")  # fmt: skip
    with pytest.raises(FssbenchError, match=r"1 unexpected \(features.50.weight\)"):
        build.backbone("vgg16-bn", tmp_path / "other.pth")


def test_random_weights_are_the_same_each_time(tiny_images: Tensor) -> None:
    one, two = (build.backbone("vgg16-bn", "random") for _ in range(2))
    assert torch.equal(
        one(tiny_images, ["layer4"])["layer4"], two(tiny_images, ["layer4"])["layer4"]
    )
    assert one.weights.source == "random"
