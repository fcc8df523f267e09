"""Files of HSNet's authors, from ``fssbench checkpoint import`` to prediction."""

from __future__ import annotations

import pytest
import torch
from authors_numbers import draw, picture, region

import fssbench
from fssbench import FssbenchError, Predictor
from fssbench.importing import import_checkpoint
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench_hsnet.checkpoint import import_official

LISTING = "weights_hsnet_hpn_learner_resnet50.tsv"


def official_state(name):
    """A file of the authors: torchvision's encoder with its classifier, and the learner."""
    learner = fssbench.matcher("hsnet", name).hpn_learner.state_dict()
    encoder = fssbench.backbone(name, "random").model.state_dict()
    if name == "vgg16":
        encoder = {n: t for n, t in encoder.items() if n.startswith("features.")}
        head = {"classifier.0.weight": torch.zeros(4096, 8), "classifier.0.bias": torch.zeros(4096)}
    else:
        head = {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    return {
        **{f"backbone.{n}": t for n, t in {**encoder, **head}.items()},
        **{f"hpn_learner.{n}": draw(f"hpn_learner.{n}", tuple(t.shape))
           for n, t in learner.items()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def resnet50_state():
    return official_state("resnet50")


def save(tmp_path, state, name="best_model.pt"):
    torch.save(state, tmp_path / name)
    return tmp_path / name


def test_names_are_the_authors(golden_folder):
    lines = (golden_folder / LISTING).read_text().splitlines()[1:]
    listed = {f"hpn_learner.{line.split()[0]}": line.split()[1] for line in lines}
    own = fssbench.matcher("hsnet", "resnet50").state_dict()
    assert {n: "x".join(map(str, t.shape)) for n, t in own.items()} == listed


def test_import_and_predict(resnet50_state, tmp_path):
    official = save(tmp_path, {f"module.{name}": t for name, t in resnet50_state.items()})
    out = tmp_path / "hsnet.safetensors"
    header = {"dataset": "pascal5i", "fold": 2}
    assert import_checkpoint(official, out, matcher="hsnet", backbone="resnet50", header=header)
    checkpoint = read_checkpoint(out)
    assert checkpoint.header["fold"] == 2
    name = "hpn_learner.encoder_layer4to3.3.conv2.weight"
    assert torch.equal(checkpoint.weights[name], resnet50_state[name])
    predictor = Predictor(checkpoint=out, device="cpu")
    expected = resnet50_state["backbone.layer3.5.conv2.weight"]
    assert torch.equal(predictor.pipeline.backbone.model.layer3[5].conv2.weight, expected)
    mask = region(("rect", 100, 300, 100, 300), 400)
    predictor.set_support(picture(1, (1, 3, 400, 400)), mask[None])
    assert predictor.predict(picture(2, (3, 400, 400))).logits.shape == (400, 400)


@pytest.mark.parametrize("prefix", ["", "module.", "net.module."])
def test_prefixes_of_wrappers(resnet50_state, prefix):
    info = fssbench.matcher("hsnet", "resnet50").backbone
    found = import_official({f"{prefix}{n}": t for n, t in resnet50_state.items()}, info)
    assert len(found.weights) == 98
    assert "layer1.0.conv1.weight" in found.backbone


def test_vgg16(tmp_path):
    official = save(tmp_path, official_state("vgg16"))
    out = tmp_path / "hsnet.safetensors"
    assert import_checkpoint(official, out, matcher="hsnet", backbone="vgg16")
    assert read_checkpoint(out).header["backbone"] == "vgg16"


def test_a_file_without_the_backbone(resnet50_state, tmp_path):
    learner = {name: t for name, t in resnet50_state.items() if name.startswith("hpn_learner.")}
    out = tmp_path / "learner.safetensors"
    official = save(tmp_path, learner)
    assert not import_checkpoint(official, out, matcher="hsnet", backbone="resnet50")
    predictor = Predictor(weights="random", checkpoint=out, device="cpu")
    assert predictor.pipeline.backbone.weights.source == "random"


def test_wrong_files(resnet50_state, tmp_path):
    def fails(state, backbone="resnet50"):
        with pytest.raises(FssbenchError) as caught:
            import_checkpoint(
                save(tmp_path, state), tmp_path / "out.safetensors", matcher="hsnet",
                backbone=backbone,
            )  # fmt: skip
        return str(caught.value)

    broken = dict(resnet50_state)
    del broken["hpn_learner.decoder2.2.bias"]
    broken["hpn_learner.decoder2.2.offset"] = torch.zeros(2)
    assert (
        "1 missing (hpn_learner.decoder2.2.bias); 1 unexpected (hpn_learner.decoder2.2.offset)"
    ) in fails(broken)
    said = fails(resnet50_state, backbone="resnet101")
    assert "1 of another shape" in said or "2 of another shape" in said
    lacking = {n: t for n, t in resnet50_state.items() if "layer4.2" not in n}
    assert "not weights of resnet50" in fails(lacking)
