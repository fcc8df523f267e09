"""Files of DCAMA's authors, from ``fssbench checkpoint import`` to evaluation and prediction."""

from __future__ import annotations

import attrs
import pytest
import safetensors.torch
import torch
from authors_numbers import draw

import fssbench
from fssbench import FssbenchError, Predictor
from fssbench.cli import _run
from fssbench.files import sha256
from fssbench.importing import import_checkpoint
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench_dcama.checkpoint import import_official, official_names

SWIN_DEPTHS = (2, 2, 18, 2)


def official_state(name, encoder):
    """A file of the authors for a backbone: `encoder` and a model, drawn by name."""
    matcher = fssbench.matcher("dcama", name)
    own = matcher.state_dict()
    state = {f"feature_extractor.{key}": value for key, value in encoder.items()}
    for theirs, ours in official_names(matcher).items():
        state[theirs] = draw(theirs, tuple(own[ours].shape))
    for index, stride in enumerate((8, 16, 32)):
        channels = matcher.backbone.layer(matcher.layers[stride][0]).channels
        state[f"model.pe.{index}.pe"] = torch.zeros(1, 1, 1).expand(1, 10000, channels)
    return state


def resnet_state(name):
    """A torchvision file with its classifier."""
    encoder = fssbench.backbone(name, "random").model.state_dict()
    return {**encoder, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}


def swin_state():
    """A file of Swin's authors: patches are merged at the end of a stage; tables are buffers."""
    encoder = {}
    for name, value in fssbench.backbone("swin-b", "random").model.state_dict().items():
        parts = name.split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        encoder[".".join(parts)] = value
    for stage, depth in enumerate(SWIN_DEPTHS):
        for block in range(depth):
            table = f"layers.{stage}.blocks.{block}.attn.relative_position_index"
            encoder[table] = torch.zeros(144, 144, dtype=torch.long)
            if block % 2 and stage < 3:
                encoder[f"layers.{stage}.blocks.{block}.attn_mask"] = torch.zeros(1, 144, 144)
    return {**encoder, "head.weight": torch.zeros(1000, 1024), "head.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def resnet50_state():
    return official_state("resnet50", resnet_state("resnet50"))


def save(tmp_path, state, name="official.pt"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def run(capsys, *arguments):
    code = _run([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_names_are_the_authors(golden_folder):
    lines = (golden_folder / "weights_dcama_resnet50.tsv").read_text().splitlines()[1:]
    listed = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    matcher = fssbench.matcher("dcama", "resnet50")
    own = matcher.state_dict()
    names = official_names(matcher)
    assert {n for n in listed if n.startswith("model.") and ".pe." not in n} == set(names)
    assert {listed[n] for n in names} == {"x".join(map(str, own[names[n]].shape)) for n in names}
    assert set(names.values()) == set(own)


def test_import_and_predict(resnet50_state, tmp_path, capsys):
    wrapped = {f"module.{name}": tensor for name, tensor in resnet50_state.items()}
    official = save(tmp_path, {"epoch": 3, "state_dict": wrapped})
    out = tmp_path / "dcama.safetensors"
    arguments = ("--backbone", "resnet50", "--out", out, "--dataset", "pascal5i", "--fold", "2")
    code, said, error = run(capsys, "checkpoint", "import", "dcama", official, *arguments)
    assert code == 0, error
    assert "dcama on resnet50, with the backbone's weights" in said

    checkpoint = read_checkpoint(out)
    assert checkpoint.header["fold"] == 2
    assert checkpoint.header["dataset"] == "pascal5i"
    name = "model.DCAMA_blocks.1.linears.1.weight"
    assert torch.equal(checkpoint.weights["attention.16-1024.key.weight"], resnet50_state[name])
    predictor = Predictor(checkpoint=out, device="cpu")
    encoder = predictor.pipeline.backbone
    expected = resnet50_state["feature_extractor.layer3.5.conv2.weight"]
    assert torch.equal(encoder.model.layer3[5].conv2.weight, expected)
    assert encoder.weights == fssbench.WeightsInfo(
        source="file", name="dcama.safetensors", sha256=sha256(out)
    )
    with pytest.raises(FssbenchError, match="--weights random: the checkpoint dcama.safetensors"):
        Predictor(weights="random", checkpoint=out, device="cpu")
    with safetensors.safe_open(out, framework="pt") as file:
        assert not [n for n in file.keys() if "fc." in n or ".pe." in n]  # noqa: SIM118


@pytest.mark.parametrize("prefix", ["", "module.", "net.module.", "model."])
def test_prefixes_of_wrappers(resnet50_state, prefix):
    info = fssbench.matcher("dcama", "resnet50").backbone
    found = import_official({f"{prefix}{n}": t for n, t in resnet50_state.items()}, info)
    assert len(found.weights) == 84
    assert "layer1.0.conv1.weight" in found.backbone


def test_order_does_not_matter(resnet50_state):
    info = fssbench.matcher("dcama", "resnet50").backbone
    found = import_official(resnet50_state, info)
    turned = import_official(dict(reversed(resnet50_state.items())), info)
    assert all(turned.weights[name] is tensor for name, tensor in found.weights.items())


def test_a_file_without_the_backbone(resnet50_state, tmp_path):
    model = {name: t for name, t in resnet50_state.items() if name.startswith("model.")}
    out = tmp_path / "model.safetensors"
    assert not import_checkpoint(save(tmp_path, model), out, matcher="dcama", backbone="resnet50")
    predictor = Predictor(weights="random", checkpoint=out, device="cpu")
    assert predictor.pipeline.backbone.weights.source == "random"


def test_wrong_files(resnet50_state, tmp_path, capsys):
    def fails(file, backbone="resnet50", matcher="dcama"):
        out = tmp_path / "out.safetensors"
        code, _, error = run(
            capsys, "checkpoint", "import", matcher, file, "--backbone", backbone, "--out", out
        )
        assert code == 2
        assert not out.exists()
        assert error.count("\n") == 1
        return error

    broken = dict(resnet50_state)
    del broken["model.conv1.0.weight"], broken["model.conv1.0.bias"], broken["model.mixer3.2.bias"]
    broken["model.mixer3.2.offset"] = torch.zeros(2)
    assert (
        "3 missing (model.conv1.0.weight, model.conv1.0.bias, model.mixer3.2.bias); "
        "1 unexpected (model.mixer3.2.offset)"
    ) in fails(save(tmp_path, broken))

    said = fails(save(tmp_path, resnet50_state), backbone="swin-b")
    assert "official.pt: no checkpoint of dcama on swin-b: " in said
    assert "16 of another shape (model.DCAMA_blocks." in said
    assert "is --backbone right?" in said

    lacking = {n: t for n, t in resnet50_state.items() if "layer4.2" not in n}
    assert "not weights of resnet50" in fails(save(tmp_path, lacking))
    assert "84 missing" in fails(save(tmp_path, {"conv.weight": torch.zeros(3)}))
    assert "1 unexpected (conv.weight)" in fails(save(tmp_path, {"conv.weight": torch.zeros(3)}))
    assert "holds no tensors" in fails(save(tmp_path, {"epoch": 3}))
    assert "there is no such file" in fails(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    assert "not readable" in fails(tmp_path / "text.pt")
    torch.save({"state_dict": print}, tmp_path / "code.pt")
    assert "not readable" in fails(tmp_path / "code.pt")
    assert "prototype has no importer of authors' files; matchers that have one: dcama" in fails(
        tmp_path / "none.pt", matcher="prototype"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"), [("resnet101", lambda: resnet_state("resnet101")), ("swin-b", swin_state)]
)
def test_other_backbones_of_the_paper(name, make, tmp_path):
    encoder = make()
    official = save(tmp_path, official_state(name, encoder))
    out = tmp_path / f"{name}.safetensors"
    assert import_checkpoint(official, out, matcher="dcama", backbone=name)
    predictor = Predictor(checkpoint=out, device="cpu")
    mask = torch.zeros(1, 384, 384, dtype=torch.uint8)
    mask[:, 100:300, 100:300] = 1
    predictor.set_support(torch.rand(1, 3, 384, 384), mask)
    assert predictor.predict(torch.rand(3, 384, 384)).logits.shape == (384, 384)
    loaded = predictor.pipeline.backbone.model.state_dict()
    if name == "swin-b":
        assert torch.equal(
            loaded["layers.3.downsample.reduction.weight"],
            encoder["layers.2.downsample.reduction.weight"],
        )
    else:
        assert all(torch.equal(loaded[key], encoder[key]) for key in loaded)


def test_evaluation_of_a_checkpoint_that_brings_its_backbone(tmp_path):
    from fssbench.matchers.checkpoint import write_checkpoint

    encoder = fssbench.backbone("tiny-resnet", "random")
    matcher = fssbench.matcher("dcama", encoder)
    header = {"matcher": "dcama", "backbone": "tiny-resnet", "config": {}}
    path = tmp_path / "c.safetensors"
    write_checkpoint(path, matcher, header, encoder.model.state_dict())
    job = fssbench.Evaluation(
        matcher="dcama",
        backbone="tiny-resnet",
        data_options={"images_per_split": "120"},
        folds=(0,),
        limit=2,
        workers=0,
        checkpoint=path,
        out=tmp_path / "runs",
        metrics=("regions",),
    )
    (result,) = fssbench.evaluate(job)
    assert result.record.weights.source == "file"
    assert result.record.weights.sha256 == sha256(path) == result.record.checkpoint.sha256
    assert 0 <= result.record.scores["rom"] < 1
    with pytest.raises(FssbenchError, match="leave --weights out"):
        fssbench.evaluate(attrs.evolve(job, weights="random"))
