"""Encoders of timm by timm's names: features equal to timm's own, layers, sides, names, weights."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import timm
import torch

import fssbench
from fssbench import registry
from fssbench.backbones import weights
from fssbench.build import describe
from fssbench.cli import main
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.model import model_source
from fssbench.specs import BackboneSpec
from fssbench.testing import BackboneConformance

# Convolutional, plain transformers with 0, 1 and 5 prefix tokens, and hierarchical ones.
ARCHITECTURES = [
    "resnet18",
    "mobilenetv3_small_050",
    "efficientnet_lite0",
    "convnext_atto",
    "regnetx_002",
    "selecsls42",  # features inside of a module that timm calls head
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_tiny_patch16_dinov3_qkvb",
    "test_vit_relpos",
    "xcit_nano_12_p8_224",
    "swin_tiny_patch4_window7_224",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "pvt_v2_b0",
    "test_maxvit",
    "test_nfnet",
    "mobilevit_xxs",
]


def spec(name):
    return registry.registry().get(BackboneSpec, name)


@pytest.fixture
def run(capsys):
    """Run a command, and return its exit code and what it printed as errors."""

    def command(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        return stop.value.code, capsys.readouterr().err

    return command


def normalised(images, config):
    mean, std = (torch.tensor(config[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


@pytest.mark.parametrize(
    ("name", "source"),
    [
        *((name, "file") for name in ARCHITECTURES),
        *(
            pytest.param(name, "random", marks=[pytest.mark.slow] if index % 4 else [])
            for index, name in enumerate(ARCHITECTURES)
        ),
    ],
)
def test_features_are_timms_own(name, source, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(weights.RANDOM_SEED)
        options = {"num_classes": 0} if source == "random" else {}  # files have a classifier
        model = timm.create_model(name, pretrained=False, **options).eval()
    if source == "file":
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0.01, 0.1)
        torch.save(model.state_dict(), tmp_path / "file.pth")
    chosen = tmp_path / "file.pth" if source == "file" else source
    backbone = fssbench.backbone(f"timm/{name}", chosen)
    side = 256 if name == "sam2_hiera_tiny" else backbone.info.image_size
    images = torch.rand(1, 3, side, side)
    layers = list(backbone.layers)
    with torch.no_grad():
        found = backbone(images, layers)
        final, maps = model.forward_intermediates(normalised(images, model.pretrained_cfg))
    for entry, expected, layer in zip(model.feature_info, maps, layers, strict=False):
        assert layer == entry["module"]
        assert backbone.info.layer(layer).stride == entry["reduction"]
        assert torch.equal(found[layer], expected), layer
    if "norm" in layers:
        tokens = final[:, model.num_prefix_tokens :].transpose(1, 2)
        assert torch.equal(found["norm"].flatten(2), tokens)
    assert len(layers) == len(maps) + ("norm" in layers)


@pytest.mark.parametrize(
    ("name", "multiple", "size"),
    [
        ("timm/test_resnet", 1, 160),
        ("timm/test_vit", 16, 160),
        ("timm/swin_tiny_patch4_window7_224", 4, 224),
        ("timm/hieradet_small", 32, 256),
        ("timm/test_maxvit", 160, 160),
        ("timm/pit_ti_224", 224, 224),
        ("dinov3-s", 16, 256),
        ("dinov2-s", 14, 518),
    ],
)
def test_sides(name, multiple, size):
    info = describe(spec(name))
    assert (info.multiple, info.image_size) == (multiple, size)


def test_an_encoder_of_one_size_refuses_others():
    backbone = fssbench.backbone("timm/test_maxvit", "random")
    with pytest.raises(FssbenchError, match=r"timm/test_maxvit.untrained: takes 160 x 160 pixels"):
        backbone(torch.rand(1, 3, 320, 320), ["stem"])


def test_layers_whose_stride_timm_states_wrongly_are_left_out():
    assert list(describe(spec("timm/pit_ti_224")).layers) == ["transformers.1", "transformers.2"]
    with pytest.raises(FssbenchError, match=r"timm/inception_v3\S*: .* choose another encoder"):
        describe(spec("timm/inception_v3"))


def test_layers_without_a_name_of_their_own_are_numbered():
    assert list(describe(spec("timm/coat_tiny")).layers) == [f"features.{n}" for n in range(4)]


def test_no_stage_after_the_deepest_requested_one_runs():
    backbone = fssbench.backbone("timm/test_resnet", "random")
    backbone.model.layer3.register_forward_hook(lambda *_: pytest.fail("layer3 ran"))
    images = torch.rand(1, 3, 65, 33)
    assert backbone(images, ["layer2", "layer1"])["layer2"].shape == (1, 48, 9, 5)
    assert backbone(images, []) == {}


def test_a_name_stands_for_timms_default_tag():
    tag = timm.get_pretrained_cfg("resnet18").tag
    for name in ("timm/resnet18", "timm/ResNet18", f"timm/resnet18.{tag}"):
        assert spec(name).name == f"timm/resnet18.{tag}"
    other = spec("timm/resnet18.tv_in1k")
    assert other.name == "timm/resnet18.tv_in1k"
    assert registry.registry().provider(other) == "fssbench.backbones"


@pytest.mark.parametrize(
    "name", ["timm/vit_small_patch16_dinov3", "timm/vit_small_patch16_dinov3.lvd1689m"]
)
def test_a_short_name_is_preferred(name):
    assert spec(name).name == "dinov3-s"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet81", "timm [0-9.]+ has no model 'resnet81'; did you mean 'resnet18' or"),
        ("timm/resnet18.tv_in2k", "no weights resnet18.tv_in2k; did you mean 'resnet18.tv_in1k'"),
        ("timm/test_resnet.x y", "no weights test_resnet.x y"),
        ("timm/", "no backbone is called 'timm/'.*, timm/NAME"),
    ],
)
def test_wrong_names_are_one_line_with_near_ones(run, name, message):
    code, err = run("show", "backbone", name)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert len(err) < 1000
    with pytest.raises(FssbenchError, match=message):
        spec(name)


def test_weights_of_another_model_are_refused(tmp_path):
    model = timm.create_model("vit_tiny_patch16_384", pretrained=False)
    torch.save(model.state_dict(), tmp_path / "other.pth")
    with pytest.raises(FssbenchError, match=r"1 of another shape \(pos_embed"):
        fssbench.backbone("timm/vit_tiny_patch16_224", tmp_path / "other.pth")


def test_files_of_authors_are_converted_as_in_timm(tmp_path):
    random = fssbench.backbone("timm/convnext_atto", "random")
    theirs = {}
    for name, tensor in random.model.state_dict().items():
        name = name.replace("stem.", "downsample_layers.0.").replace("conv_dw", "dwconv")
        name = name.replace("mlp.fc", "pwconv").replace(".blocks.", ".")
        for stage in (1, 2, 3):
            name = name.replace(f"stages.{stage}.downsample", f"downsample_layers.{stage}")
        theirs[name.replace("head.norm", "norm")] = tensor
    torch.save({"model": theirs | {"head.weight": torch.zeros(9, 320)}}, tmp_path / "theirs.pth")
    loaded = fssbench.backbone("timm/convnext_atto", tmp_path / "theirs.pth")
    images = torch.rand(1, 3, 64, 64)
    features = loaded(images, ["stages.3"])["stages.3"]
    assert torch.equal(features, random(images, ["stages.3"])["stages.3"])


def test_pretrained_weights_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FssbenchError, match=r"fetch model.safetensors of timm/test_vit.r160_in1k"):
        fssbench.backbone("timm/test_vit")
    with pytest.raises(FssbenchError, match=r"no weights test_maxvit.untrained on the"):
        fssbench.backbone("timm/test_maxvit")


def test_computed_tensors_that_timm_cannot_restore_are_computed_on_the_cpu(tmp_path):
    class Scaled(torch.nn.Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.register_buffer("scale", torch.full((2,), 3.0), persistent=False)

    torch.save(Scaled().state_dict(), tmp_path / "scaled.pth")
    source = weights.resolve(str(tmp_path / "scaled.pth"), backbone="scaled")
    made = weights.build(Scaled, source, backbone="scaled")
    assert made.scale.tolist() == [3.0, 3.0]
    assert torch.equal(made.weight, source.state["weight"])


def test_evaluation_and_checkpoint(run, tmp_path):
    name = f"timm/test_resnet.{timm.get_pretrained_cfg('test_resnet').tag}"
    options = "--backbone timm/test_resnet --weights random --fold 0 -d images_per_split=100"
    code, err = run("evaluate", *options.split(), "--limit", 4, "--out", tmp_path)
    assert code == 0, err
    records = list(tmp_path.rglob("record.json"))
    assert len(records) == 1
    assert json.loads(records[0].read_text())["backbone"] == name
    # Folders have three levels, whatever the name.
    assert len(records[0].relative_to(tmp_path).parts) == 4

    matcher = fssbench.matcher("prototype", "timm/test_resnet")
    header = {"matcher": "prototype", "config": {}, "backbone": name}
    write_checkpoint(tmp_path / "trained.safetensors", matcher, header)
    source = model_source(weights="random", checkpoint=tmp_path / "trained.safetensors")
    assert source.backbone == name
    assert source.load()[1].info.name == name


def test_listing_imports_neither_torch_nor_timm():
    code = (
        "import sys; from fssbench.cli import cli; cli.main(['list'], standalone_mode=False); "
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "dinov3-s" in run.stdout


class TestConvolutional(BackboneConformance):
    backbone = "timm/test_resnet"


class TestMobile(BackboneConformance):
    backbone = "timm/mobilenetv3_small_050"


class TestConvNext(BackboneConformance):
    backbone = "timm/test_convnext"


class TestTransformer(BackboneConformance):
    backbone = "timm/test_vit"


class TestRegisters(BackboneConformance):
    backbone = "timm/test_vit3"


class TestRotary(BackboneConformance):
    backbone = "dinov3-s"


class TestPyramid(BackboneConformance):
    backbone = "timm/pvt_v2_b0"


class TestWindows(BackboneConformance):
    backbone = "timm/hieradet_small"
