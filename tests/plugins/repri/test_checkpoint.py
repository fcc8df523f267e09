"""Files of RePRI's authors, through ``fssbench checkpoint import``."""

from __future__ import annotations

import pytest
import torch

import fssbench
from fssbench import FssbenchError
from fssbench.importing import import_checkpoint
from fssbench.matchers.checkpoint import read_checkpoint

NAMES = {
    "head.pyramid.levels": "ppm.features",
    "head.bottleneck": "bottleneck",
    "head.classifier.2": "classifier",
}


@pytest.fixture(scope="module")
def official_state():
    """The names of the authors' PSPNet, whose attributes are layer0 to 4, ppm, bottleneck, …"""
    matcher = fssbench.matcher("repri", "resnet50-psp", base_classes=60)
    state = dict(fssbench.backbone("resnet50-psp", "random").model.state_dict())
    for name, tensor in matcher.state_dict().items():
        own = next(own for own in NAMES if name.startswith(f"{own}."))
        state[NAMES[own] + name.removeprefix(own)] = tensor
    return state


def save(tmp_path, state):
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 7, "state_dict": wrapped}, tmp_path / "best.pth")
    return tmp_path / "best.pth"


def test_import(official_state, tmp_path):
    assert {n.partition(".")[0] for n in official_state} == {
        "layer0", "layer1", "layer2", "layer3", "layer4", "ppm", "bottleneck", "classifier"
    }  # fmt: skip
    out = tmp_path / "repri.safetensors"
    official = save(tmp_path, official_state)
    assert import_checkpoint(official, out, matcher="repri", backbone="resnet50-psp")
    checkpoint = read_checkpoint(out)
    assert torch.equal(
        checkpoint.weights["head.pyramid.levels.3.1.weight"],
        official_state["ppm.features.3.1.weight"],
    )
    options = checkpoint.header["config"]
    assert (options["base_classes"], options["size"]) == (60, 417)


def test_wrong_files(official_state, tmp_path):
    broken = dict(official_state)
    del broken["bottleneck.1.bias"]
    broken["bottleneck.1.offset"] = torch.zeros(2)
    with pytest.raises(FssbenchError) as caught:
        import_checkpoint(
            save(tmp_path, broken), tmp_path / "out.safetensors", matcher="repri",
            backbone="resnet50-psp",
        )  # fmt: skip
    assert "1 missing (bottleneck.1.bias); 1 unexpected" in str(caught.value)
