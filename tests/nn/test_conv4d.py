"""Centre-pivot 4D convolution, compared with a plain 4D convolution and HSNet's numbers."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_numbers import fill
from torch import nn

from fssbench.nn import CenterPivotConv4d

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = ("k3_s1_p1", "k3_s2_p1", "k5_s4_p2", "k5_s2_p2_nobias", "k3_s1_collapse")


@pytest.fixture(scope="module")
def golden_folder():
    folder = REPOSITORY.parent / "shared" / "golden"
    if not (folder / "hsnet_conv4d.npz").is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    return folder


def test_equals_a_4d_convolution_with_a_sparse_kernel():
    torch.manual_seed(0)
    layer = CenterPivotConv4d(2, 3, (3, 3, 3, 3), padding=(1, 1, 1, 1)).double()
    x = torch.randn(1, 2, 5, 4, 3, 6, dtype=torch.float64)
    kernel = torch.zeros(3, 2, 3, 3, 3, 3, dtype=torch.float64)
    kernel[..., 1, 1] += layer.conv1.weight
    kernel[:, :, 1, 1] += layer.conv2.weight
    padded = nn.functional.pad(x, (1,) * 8)
    patches = padded.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1).unfold(5, 3, 1)
    expected = torch.einsum("bcijklmnop,dcmnop->bdijkl", patches, kernel)
    expected += (layer.conv1.bias + layer.conv2.bias).view(1, 3, 1, 1, 1, 1)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_against_the_authors_layer(golden_folder, name):
    with np.load(golden_folder / "hsnet_conv4d.npz") as file:
        arrays = dict(file)
    config = ast.literal_eval(str(arrays[f"{name}__config"]))
    layer = CenterPivotConv4d(
        config["inch"], config["outch"], config["kernel"], stride=config["stride"],
        padding=config["padding"], bias=config["bias"],
    )  # fmt: skip
    fill(layer)
    x = np.random.default_rng(9001).standard_normal((2, 3, 8, 8, 6, 6)).astype(np.float32)
    y = layer(torch.from_numpy(x))
    assert y.shape == tuple(arrays[f"{name}__shape"])
    scale = arrays[f"{name}__stats"][3]
    assert np.abs(y.detach().numpy() - arrays[name]).max() <= 1e-5 * scale
    (y.double().square().sum() / 2).backward()
    norms = [layer.conv1.weight.grad.norm().item(), layer.conv2.weight.grad.norm().item()]
    assert norms == pytest.approx(list(arrays[f"{name}__gradnorms_conv1w_conv2w"]), rel=1e-4)
