"""Centre-pivot 4D convolution, compared with a plain 4D convolution and HSNet's numbers."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_numbers import Golden, draw
from torch import nn

from fssbench.nn import CenterPivotConv4d

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = ("k3_s1_p1", "k3_s2_p1", "k5_s4_p2", "k5_s2_p2_nobias", "k3_s1_collapse")
# HSNet's pyramid, from the deepest level: kernels and support strides of its three convolutions.
LEVELS = {
    "encoder_layer4": ((3, 3, 3), (2, 2, 2)),
    "encoder_layer3": ((5, 3, 3), (4, 2, 2)),
    "encoder_layer2": ((5, 5, 3), (4, 4, 2)),
}
WIDTHS = (16, 64, 128)


@pytest.fixture(scope="module")
def golden_folder():
    folder = REPOSITORY.parent / "shared" / "golden"
    if not (folder / "hsnet_conv4d.npz").is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    return folder


def fill(module):
    """Set the weights by the rule of the fixtures and the names of the parameters."""
    module.load_state_dict({n: draw(n, tuple(t.shape)) for n, t in module.state_dict().items()})


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


class Squeeze(nn.Sequential):
    """HSNet's squeezing block: three times convolution, group norm and ReLU, of any strides."""

    def __init__(self, channels, widths, kernels, strides):
        layers = []
        for width, kernel, stride in zip(widths, kernels, strides, strict=True):
            layers += [
                CenterPivotConv4d(
                    channels, width, (kernel,) * 4, stride=(1, 1, stride, stride),
                    padding=(kernel // 2,) * 4,
                ),
                nn.GroupNorm(4, width),
                nn.ReLU(),
            ]  # fmt: skip
            channels = width
        super().__init__(*layers)


def upsampled(volume, sides):
    """Resize the query dimensions bilinearly; support dimensions are unchanged."""
    batch, _, _, _, hs, ws = volume.shape
    maps = volume.permute(0, 4, 5, 1, 2, 3).flatten(0, 2)
    maps = nn.functional.interpolate(maps, sides, mode="bilinear", align_corners=True)
    return maps.unflatten(0, (batch, hs, ws)).permute(0, 3, 4, 5, 1, 2)


@pytest.mark.parametrize(
    ("file", "seed", "sides"),
    [("small", 9101, (7, 13, 25)), pytest.param("400", 9201, (13, 25, 50), marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_the_authors_pyramid_out_of_these_layers(golden_folder, file, seed, sides):
    with np.load(golden_folder / f"hsnet_hpn_learner_{file}.npz") as stored:
        golden = Golden({}, dict(stored))
    parts = nn.ModuleDict()
    for (name, (kernels, strides)), channels in zip(LEVELS.items(), (3, 6, 4), strict=True):
        parts[name] = Squeeze(channels, WIDTHS, kernels, strides)
    for name in ("encoder_layer4to3", "encoder_layer3to2"):
        parts[name] = Squeeze(128, (128,) * 3, (3,) * 3, (1,) * 3)
    parts["decoder1"] = nn.Sequential(
        nn.Conv2d(128, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 64, 3, padding=1), nn.ReLU()
    )
    parts["decoder2"] = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1)
    )
    fill(parts)
    levels = [
        torch.from_numpy(
            np.random.default_rng(seed + j).random((1, c, n, n, n, n)).astype(np.float32)
        )
        for j, (c, n) in enumerate(zip((3, 6, 4), sides, strict=True))
    ]
    squeezed = [parts[name](level) for name, level in zip(LEVELS, levels, strict=True)]
    for name, found in zip(LEVELS, squeezed, strict=True):
        near(golden, name, found)
    mixed = upsampled(squeezed[0], squeezed[1].shape[2:4]) + squeezed[1]
    mixed = parts["encoder_layer4to3"](mixed)
    near(golden, "encoder_layer4to3", mixed)
    mixed = upsampled(mixed, squeezed[2].shape[2:4]) + squeezed[2]
    mixed = parts["encoder_layer3to2"](mixed)
    near(golden, "encoder_layer3to2", mixed)
    maps = parts["decoder1"](mixed.mean((-2, -1)))
    near(golden, "decoder1", maps)
    maps = nn.functional.interpolate(
        maps, [2 * side for side in maps.shape[-2:]], mode="bilinear", align_corners=True
    )
    golden.near("logits", parts["decoder2"](maps), 5e-5)


def near(golden, name, found):
    """Compare sum, mean, std, abs-max, min and max with the stored ones."""
    stats = golden.arrays[f"{name}__stats"]
    assert found.shape == tuple(golden.arrays[f"{name}__shape"])
    x = found.double().numpy()
    ours = [x.mean(), x.std(), np.abs(x).max(), x.min(), x.max()]
    assert np.abs(np.array(ours) - stats[1:]).max() <= 1e-5 * stats[3]
