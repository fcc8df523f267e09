"""Which parameters of a backbone get a gradient."""

from __future__ import annotations

import pytest
import torch

from fssbench import build
from fssbench.training.optim import parameters_behind


@pytest.mark.parametrize(
    ("name", "layers", "idle"),
    [
        ("tiny-resnet", ("layer4.1",), ()),
        ("tiny-resnet", ("layer2.2", "layer3.2", "layer3.2"), ("layer4.",)),
        ("tiny-resnet", ("layer3.2:pre",), ("layer4.",)),
        ("tiny-vit", ("norm",), ()),
        ("tiny-vit", ("blocks.2",), ("blocks.3.", "blocks.4.", "norm.")),
    ],
)
def test_parameters_behind_layers(name, layers, idle):
    backbone = build.backbone(name, "random")
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    reached = {id(p) for p in parameters_behind(backbone, layers, size=64)}
    for key, parameter in backbone.model.named_parameters():
        assert (id(parameter) in reached) != key.startswith(idle or ("-",)), key
        assert not parameter.requires_grad
        assert parameter.grad is None
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


@pytest.mark.parametrize(("name", "layers"), [("filterbank", ("all",)), ("tiny-vit", ())])
def test_nothing_to_reach(name, layers):
    backbone = build.backbone(name, "pretrained" if name == "filterbank" else "random")
    assert parameters_behind(backbone, layers, size=64) == []
