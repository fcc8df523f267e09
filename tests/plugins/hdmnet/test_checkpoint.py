"""Files of HDMNet's authors, from ``fssbench checkpoint import`` to prediction."""

from __future__ import annotations

import pytest
import torch
from authors_numbers import draw

import fssbench
from fssbench import Predictor
from fssbench.cli import _run
from fssbench.files import sha256
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench_hdmnet.checkpoint import import_official, official_names

SIDE = 65


def official_state(backbone, **options):
    """A file of the authors for a backbone, drawn by name."""
    matcher = fssbench.matcher("hdmnet", backbone, **options)
    own = matcher.state_dict()
    state = dict(fssbench.backbone(backbone, "random").model.state_dict())
    for theirs, ours in official_names(matcher).items():
        counter = theirs.endswith("num_batches_tracked")
        state[theirs] = torch.tensor(3) if counter else draw(theirs, tuple(own[ours].shape))
    return state


@pytest.fixture(scope="module")
def vgg_state():
    return official_state("vgg16-bn", shots=5, base_classes=60)


def save(tmp_path, state, name="official.pth"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def run(capsys, *arguments):
    code = _run([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_names_are_the_authors(golden_folder):
    lines = (golden_folder / "weights_hdmnet_resnet50_1shot.tsv").read_text().splitlines()[1:]
    listed = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    matcher = fssbench.matcher("hdmnet", "resnet50-psp")
    own = matcher.state_dict()
    names = official_names(matcher)
    encoder = ("layer0.", "layer1.", "layer2.", "layer3.", "layer4.")
    assert {n for n in listed if not n.startswith(encoder)} == set(names)
    shapes = {n: "x".join(map(str, own[names[n]].shape)) or "scalar" for n in names}
    assert {n: listed[n] for n in names} == shapes
    assert set(names.values()) == set(own)


def test_import_reads_shots_classes_and_prefix(vgg_state, tmp_path, capsys, caplog):
    wrapped = {f"module.{name}": tensor for name, tensor in vgg_state.items()}
    official = save(tmp_path, {"epoch": 3, "state_dict": wrapped, "optimizer": {}})
    out = tmp_path / "hdmnet.safetensors"
    arguments = ("--backbone", "vgg16-bn", "--out", out, "--dataset", "coco20i", "--fold", "2")
    code, said, error = run(capsys, "checkpoint", "import", "hdmnet", official, *arguments)
    assert code == 0, error
    assert "hdmnet on vgg16-bn, with the backbone's weights" in said

    checkpoint = read_checkpoint(out)
    assert checkpoint.header["config"]["shots"] == 5
    assert checkpoint.header["config"]["base_classes"] == 60
    assert checkpoint.header["config"]["size"] == 633  # COCO's
    assert "-o base_classes=60 -o shots=5 -o size=633" in caplog.text
    assert checkpoint.header["fold"] == 2
    for theirs, ours in (
        ("transformer.mix_transformer.match_layers.1.0.attn.attn.linear_k.weight",
         "matching.1.key.weight"),
        ("transformer.mix_transformer.down_sample_layers.0.2.attn.sr.bias",
         "pyramid.stages.0.blocks.1.attention.reduce.bias"),
        ("kshot_rw.2.bias", "ensemble.reweight.2.bias"),
        ("base_learnear.2.weight", "base.classifier.2.weight"),
        ("cls.1.running_var", "base.bottleneck.1.running_var"),
    ):  # fmt: skip
        assert torch.equal(checkpoint.weights[ours], vgg_state[theirs])
    encoder = fssbench.backbone("vgg16-bn", out)
    assert encoder.weights.sha256 == sha256(out)
    assert torch.equal(encoder.model.state_dict()["layer3.0.weight"], vgg_state["layer3.0.weight"])


def test_options_override_those_of_the_file(vgg_state, tmp_path, capsys):
    out = tmp_path / "hdmnet.safetensors"
    arguments = ("--backbone", "vgg16-bn", "--out", out, "-o", "size=473", "-o", "temperature=0.2")
    code, _, error = run(
        capsys, "checkpoint", "import", "hdmnet", save(tmp_path, vgg_state), *arguments
    )
    assert code == 0, error
    config = read_checkpoint(out).header["config"]
    assert (config["size"], config["base_classes"], config["temperature"]) == (473, 60, 0.2)


@pytest.mark.parametrize("prefix", ["", "module.", "net.module."])
def test_prefixes_of_wrappers(vgg_state, prefix):
    info = fssbench.matcher("hdmnet", "vgg16-bn").backbone
    found = import_official({f"{prefix}{n}": t for n, t in vgg_state.items()}, info)
    assert found.config == {"base_classes": 60, "shots": 5, "size": 633}
    assert "merge_query.project.weight" in found.weights
    assert "layer1.0.weight" in found.backbone
    turned = import_official(dict(reversed(vgg_state.items())), info)
    assert all(turned.weights[name] is vgg_state[theirs] for theirs, name in zip(
        found.names.values(), found.names, strict=True
    ))  # fmt: skip


def test_one_shot_has_no_reweighting():
    state = official_state("tiny-resnet")
    info = fssbench.matcher("hdmnet", "tiny-resnet").backbone
    found = import_official(state, info)
    assert found.config == {"base_classes": 15}
    assert not [name for name in found.names.values() if "kshot" in name]


def test_wrong_files(vgg_state, tmp_path, capsys):
    def fails(file, backbone="vgg16-bn"):
        out = tmp_path / "out.safetensors"
        code, _, error = run(
            capsys, "checkpoint", "import", "hdmnet", file, "--backbone", backbone, "--out", out
        )
        assert code == 2
        assert not out.exists()
        assert error.count("\n") == 1
        return error

    broken = dict(vgg_state)
    del broken["down_query.0.weight"], broken["transformer.mix_transformer.cls.4.bias"]
    broken["transformer.mix_transformer.cls.5.bias"] = torch.zeros(2)
    said = fails(save(tmp_path, broken))
    assert "2 missing (down_query.0.weight, transformer.mix_transformer.cls.4.bias)" in said
    assert "1 unexpected (transformer.mix_transformer.cls.5.bias)" in said
    said = fails(save(tmp_path, vgg_state), backbone="resnet50-psp")
    assert "official.pth: no checkpoint of hdmnet on resnet50-psp: " in said
    assert "of another shape (ppm.features.0.1.weight (128, 512, 1, 1)" in said
    lacking = {n: t for n, t in vgg_state.items() if not n.startswith("layer4.")}
    assert "not weights of vgg16-bn" in fails(save(tmp_path, lacking))
    encoder = {n: t for n, t in vgg_state.items() if n.startswith("layer")}
    assert "missing (ppm.features.0.1.weight" in fails(save(tmp_path, encoder))


def test_predictions_of_an_imported_file(vgg_state, tmp_path):
    from fssbench.importing import import_checkpoint

    out = tmp_path / "hdmnet.safetensors"
    assert import_checkpoint(save(tmp_path, vgg_state), out, matcher="hdmnet", backbone="vgg16-bn")
    predictor = Predictor(
        "hdmnet", "vgg16-bn", out, device="cpu", shots=5, base_classes=60, size=SIDE
    )
    read_checkpoint(out).load_into(predictor.pipeline.matcher)
    masks = torch.zeros(5, SIDE, SIDE, dtype=torch.uint8)
    masks[:, 10:50, 20:60] = 1
    generator = torch.Generator().manual_seed(0)
    predictor.set_support(torch.rand(5, 3, SIDE, SIDE, generator=generator), masks)
    prediction = predictor.predict(torch.rand(3, 40, 80, generator=generator))
    assert prediction.logits.shape == (SIDE, SIDE)
    assert prediction.mask.shape == (40, 80)
