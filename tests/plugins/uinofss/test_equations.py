"""Equations 2 to 11 of the paper against float64 NumPy, and the 4D partition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import fssbench
from fssbench import BackboneInfo, LayerInfo
from fssbench_uinofss.hypercorrelation import GlobalModelling, HyperCorrelation
from fssbench_uinofss.partition import assemble, partition
from fssbench_uinofss.prepared import Support
from fssbench_uinofss.prompts import DensePrior, SinePrompt
from fssbench_uinofss.volume import at_places, binary, contrasted_volume

INFO = BackboneInfo(
    name="little-vit",
    layers={
        **{f"blocks.{n}": LayerInfo(12, 8, norm=True) for n in range(8)},
        "norm": LayerInfo(12, 8),
    },
    image_size=40,
    multiple=8,
)


def doubles(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def cosines(query, support):
    """The fraction of equations 5 and 6, one place after the other; 0 where a vector is 0."""
    _, hq, wq = query.shape
    _, hs, ws = support.shape
    volume = np.zeros((hq, wq, hs, ws))
    for a, b, c, d in itertools.product(range(hq), range(wq), range(hs), range(ws)):
        q, s = query[:, a, b], support[:, c, d]
        length = np.sqrt((q * q).sum()) * np.sqrt((s * s).sum())
        volume[a, b, c, d] = (q * s).sum() / length if length else 0.0
    return volume


def equations_4_to_8(query, support, mask):
    """For lists of l layers: V and, of each layer, its foreground volume."""
    volumes, foregrounds = [], []
    for q, s in zip(query, support, strict=True):
        fg, bg = mask[None] * s, (1 - mask)[None] * s  # 4
        v_fg, v_bg = cosines(q, fg), cosines(q, bg)  # 5, 6
        volumes.append(v_fg - v_bg)  # 7
        foregrounds.append(v_fg)
    return np.stack(volumes), foregrounds  # 8


@pytest.fixture
def pair():
    """Features of three layers of a query and a support of other sizes, and a mask of 0 and 1."""
    query = [doubles(n, 7, 4, 3) for n in range(3)]
    support = [doubles(n + 9, 7, 3, 5) for n in range(3)]
    mask = torch.from_numpy(np.random.default_rng(5).integers(0, 2, (3, 5)).astype(float))
    return query, support, mask


def batched(maps):
    return [each[None] for each in maps]


def test_equations_4_to_8_contrastive_enhancement(pair):
    query, support, mask = pair
    expected, foregrounds = equations_4_to_8(
        [q.numpy() for q in query], [s.numpy() for s in support], mask.numpy()
    )
    found = contrasted_volume(batched(query), batched(support), mask[None])
    assert found.shape == (1, 3, 4, 3, 3, 5)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)
    plain = contrasted_volume(batched(query), batched(support), mask[None], contrast=False)
    np.testing.assert_allclose(plain[0].numpy(), np.stack(foregrounds), atol=1e-12)


def test_a_binary_mask_is_the_larger_part_of_a_position():
    shares = torch.tensor([[[0.49, 0.5], [0.3, 1.0]], [[0.1, 0.3], [0.3, 0.0]], [[0.0] * 2] * 2])
    expected = torch.tensor([[[0, 1], [0, 1]], [[0, 1], [1, 0]], [[0] * 2] * 2])
    assert torch.equal(binary(shares), expected.float())


def test_equation_4_has_a_binary_mask_by_default():
    """A position with 30 % foreground is background, and with `mask=share` 0.7 of it is."""
    volumes = {}
    for mask in ("binary", "share"):
        matcher = fssbench.matcher("uinofss", INFO, channels=4, decode=(4, 4, 4), mask=mask)
        captured = []
        matcher.hypercorrelation.register_forward_pre_hook(
            lambda module, given, into=captured: into.append(given[0])
        )
        maps = (torch.ones(1, 12, 1, 2), torch.ones(1, 12, 1, 2), torch.ones(1, 12, 1, 2))
        matcher._pooled_pairs(maps, maps, torch.tensor([[[0.3, 0.9]]]))
        volumes[mask] = captured[0][0, 0, 0, 0, 0]
    torch.testing.assert_close(volumes["binary"], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(volumes["share"], torch.tensor([-0.4, 0.8]))


def test_shares_weigh_the_cosines(pair):
    query, support, mask = pair
    share = 0.25 + mask / 2
    whole = contrasted_volume(batched(query), batched(support), torch.ones_like(mask)[None])
    found = contrasted_volume(batched(query), batched(support), share[None])
    torch.testing.assert_close(found, whole * (2 * share - 1))


@pytest.mark.parametrize("sides", [(4, 4, 4, 4), (5, 7, 3, 6), (1, 2, 3, 1), (8, 3, 5, 5)])
@pytest.mark.parametrize("blocks", [(1, 1), (2, 2), (4, 3), (3, 5)])
def test_the_partition_and_its_inverse_are_exact(sides, blocks):
    volume = torch.randn(2, 3, *sides)
    patches = partition(volume, *blocks)
    kq, ks = blocks
    counts = [-(-side // k) for side, k in zip(sides, (kq, kq, ks, ks), strict=True)]
    assert patches.shape == (2 * np.prod(counts), kq**2, ks**2, 3)
    assert torch.equal(assemble(patches, sides, *blocks), volume)


def test_a_patch_is_a_4d_block_with_padding_of_zeros():
    volume = torch.arange(1.0, 1 + 5 * 4 * 3 * 4).view(1, 1, 5, 4, 3, 4)
    patches = partition(volume, 2, 2)  # 3 x 2 x 2 x 2 blocks
    padded = torch.zeros(6, 4, 4, 4)
    padded[:5, :, :3] = volume[0, 0]
    places = itertools.product(range(3), range(2), range(2), range(2))
    for patch, (a, b, c, d) in zip(patches, places, strict=True):
        block = padded[2 * a :, 2 * b :, 2 * c :, 2 * d :][:2, :2, :2, :2]
        assert torch.equal(patch[..., 0], block.reshape(4, 4))


# --- equation 9 and what comes before it ----------------------------------------------------------


def plane_convolution(volume, weight, bias, query):
    """3 x 3 over one pair of dimensions of (C, a, b, c, d), padded with zeros."""
    sides = volume.shape[1:]
    out = np.zeros((len(weight), *sides))
    padded = np.pad(volume, [(0, 0), *([(1, 1)] * 2 + [(0, 0)] * 2)]) if query else np.pad(
        volume, [(0, 0), *([(0, 0)] * 2 + [(1, 1)] * 2)]
    )  # fmt: skip
    for i, j in itertools.product(range(3), range(3)):
        a, b, c, d = sides
        part = padded[:, i : i + a, j : j + b] if query else padded[..., i : i + c, j : j + d]
        out += np.einsum("oc,cabxy->oabxy", weight[..., i, j], part)
    return out + bias[:, None, None, None, None]


def group_norm(volume, weight, bias, groups=4):
    split = volume.reshape(groups, -1)
    split = (split - split.mean(1, keepdims=True)) / np.sqrt(split.var(1, keepdims=True) + 1e-5)
    shape = (-1, 1, 1, 1, 1)
    return split.reshape(volume.shape) * weight.reshape(shape) + bias.reshape(shape)


def layer_norm(x, module):
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normed * array(module.weight) + array(module.bias)


def gelu(x):
    erf = torch.erf(torch.from_numpy(x / np.sqrt(2))).numpy()
    return x * (1 + erf) / 2


def array(tensor):
    return tensor.detach().numpy()


def scan_of_one_direction(scan, direction, tokens):
    """Mamba's recurrence over the rows of (L, C), with n = 1 or more states."""
    n, channels = scan.states, tokens.shape[1]
    rank = scan.rank
    chosen = tokens @ array(scan.select)[direction]
    delta = chosen[:, :rank] @ array(scan.steps)[direction] + array(scan.step_bias)[direction]
    delta = np.log1p(np.exp(delta))
    b, c = chosen[:, rank : rank + n], chosen[:, rank + n :]
    own = slice(direction * channels, (direction + 1) * channels)
    a, skip = -np.exp(array(scan.decay_log))[own], array(scan.skip)[own]
    h, out = np.zeros((channels, n)), []
    for t, u in enumerate(tokens):
        h = np.exp(delta[t][:, None] * a) * h + (delta[t] * u)[:, None] * b[t][None]
        out.append(h @ c[t] + skip * u)
    return np.array(out)


def cross_scan(scan, patch):
    """VMamba's SS2D of one patch (h, w, C): four walks through it."""
    height, width, _ = patch.shape
    x = patch @ array(scan.project_in.weight).T
    padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
    kernel, y = array(scan.depthwise.weight)[:, 0], array(scan.depthwise.bias) + 0 * x
    for i, j in itertools.product(range(3), range(3)):
        y = y + padded[i : i + height, j : j + width] * kernel[:, i, j]
    x = y / (1 + np.exp(-y))
    rows = list(itertools.product(range(height), range(width)))
    columns = [(i, j) for j in range(width) for i in range(height)]
    total = np.zeros_like(x)
    for direction, walk in enumerate((rows, columns, rows[::-1], columns[::-1])):
        tokens = np.array([x[place] for place in walk])
        scanned = scan_of_one_direction(scan, direction, tokens)
        for place, value in zip(walk, scanned, strict=True):
            total[place] += value
    return layer_norm(total, scan.norm) @ array(scan.project_out.weight).T


def block(module, volume, kq, ks):
    """One HGMB of (l, hq, wq, hs, ws) whose sides kq and ks divide."""
    layer, norm, _ = module.local
    local = plane_convolution(volume, array(layer.conv1.weight), array(layer.conv1.bias), True)
    local += plane_convolution(volume, array(layer.conv2.weight), array(layer.conv2.bias), False)
    local = np.maximum(group_norm(local, array(norm.weight), array(norm.bias)), 0)
    out = np.zeros_like(local)
    _, hq, wq, hs, ws = local.shape
    steps = (range(0, hq, kq), range(0, wq, kq), range(0, hs, ks), range(0, ws, ks))
    for a, b, c, d in itertools.product(*steps):
        where = np.s_[:, a : a + kq, b : b + kq, c : c + ks, d : d + ks]
        part = local[where]
        patch = part.reshape(len(part), kq * kq, ks * ks).transpose(1, 2, 0)
        vss = module.vss
        patch = patch + cross_scan(vss.scan, layer_norm(patch, vss.norm1))
        first, _, second = vss.feed
        hidden = gelu(layer_norm(patch, vss.norm2) @ array(first.weight).T + array(first.bias))
        patch = patch + hidden @ array(second.weight).T + array(second.bias)
        out[where] = patch.transpose(2, 0, 1).reshape(part.shape)
    return out


def shaken(module, seed=0):
    """All parameters different from each other, in float64."""
    torch.manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("states", [1, 2])
@torch.no_grad()
def test_equation_9_two_global_modelling_blocks(states):
    module = shaken(HyperCorrelation(3, 4, blocks=(2, 3), states=states))
    volume = doubles(1, 3, 4, 2, 3, 6)
    expected = volume.numpy()
    for each in module:
        expected = block(each, expected, 2, 3)
    found = module(volume[None])[0].numpy()
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


@torch.no_grad()
def test_blocks_are_connected_only_by_the_convolution():
    module = shaken(GlobalModelling(4, 4, blocks=(2, 2)))
    module.local = torch.nn.Identity()
    volume = doubles(2, 1, 4, 4, 4, 4, 4)
    other = volume.clone()
    other[:, :, :2, :2, :2, :2] += 1
    moved = (module(volume) != module(other)).any(1)[0]
    assert moved[:2, :2, :2, :2].all()
    moved[:2, :2, :2, :2] = False
    assert not moved.any()


# --- equations 10 and 11, 2 and 3 -----------------------------------------------------------------


@pytest.mark.parametrize("pool", ["all", "foreground"])
@torch.no_grad()
def test_equation_10_averages_over_the_support(pair, pool):
    query, support, mask = pair
    matcher = fssbench.matcher(
        "uinofss", INFO, width=32, channels=4, query_block=2, support_block=2, pool=pool,
        decode=(4, 4, 4),
    )  # fmt: skip
    shaken(matcher.hypercorrelation)
    kept = Support(
        prompts=torch.zeros(1, 0, 32),
        prototypes=None,
        features=tuple(each[None, None] for each in support),
        masks=mask[None, None],
    )
    found = matcher.pooled(batched(query), kept)[0].numpy()
    volume, foregrounds = equations_4_to_8(
        [q.numpy() for q in query], [s.numpy() for s in support], mask.numpy()
    )
    refined = matcher.hypercorrelation(torch.from_numpy(volume)[None])[0].numpy()
    if pool == "all":
        expected = foregrounds[-1].mean((2, 3))[None] + refined.mean((3, 4))
    else:
        weights = mask.numpy() / mask.numpy().sum()
        expected = (foregrounds[-1] * weights).sum((2, 3))[None]
        expected = expected + (refined * weights).sum((3, 4))
    np.testing.assert_allclose(found, expected, atol=1e-10)


def doubled(maps):
    """(C, h, w) to (C, 2 h, 2 w), bilinear between cell centres."""

    def matrix(side):
        rows = np.zeros((2 * side, side))
        for i in range(2 * side):
            place = min(max((i + 0.5) / 2 - 0.5, 0), side - 1)
            low = int(np.floor(place))
            high = min(low + 1, side - 1)
            rows[i, low] += 1 - (place - low)
            rows[i, high] += place - low
        return rows

    _, height, width = maps.shape
    return np.einsum("ih,chw,jw->cij", matrix(height), maps, matrix(width))


def convolution(maps, layer):
    weight = array(layer.weight)
    pad = weight.shape[-1] // 2
    padded = np.pad(maps, [(0, 0), (pad, pad), (pad, pad)])
    _, height, width = maps.shape
    out = array(layer.bias)[:, None, None] + np.zeros((len(weight), height, width))
    for i, j in itertools.product(range(weight.shape[-1]), repeat=2):
        out += np.einsum("oc,chw->ohw", weight[..., i, j], padded[:, i : i + height, j : j + width])
    return out


@torch.no_grad()
def test_equation_11_prior_mask():
    module = shaken(DensePrior(5, widths=(6, 4, 3)))
    pooled = doubles(3, 5, 3, 4)
    first, second, third = module.upsample
    maps = doubled(np.maximum(convolution(pooled.numpy(), first), 0))
    maps = doubled(np.maximum(convolution(maps, second), 0))
    maps = np.maximum(convolution(maps, third), 0)
    expected = 1 / (1 + np.exp(-convolution(maps, module.project)[0]))
    found = module(pooled[None]).sigmoid()[0].numpy()
    assert found.shape == (12, 16)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@torch.no_grad()
def test_equations_2_and_3_sine_of_a_prototype():
    module = shaken(SinePrompt(7, width=8, inner=3))
    features, masks = doubles(4, 1, 2, 7, 4, 3), torch.rand(1, 2, 4, 3, dtype=torch.float64)
    first, norm1, second, norm2 = module.project

    def norm(maps, module):
        normed = (maps - maps.mean(0)) / np.sqrt(maps.var(0) + 1e-6)
        return normed * array(module.weight)[:, None, None] + array(module.bias)[:, None, None]

    prototypes = []
    for maps, mask in zip(features[0].numpy(), masks[0].numpy(), strict=True):
        maps = norm(convolution(norm(convolution(maps, first), norm1), second), norm2)
        prototypes.append((maps * mask).sum((1, 2)) / mask.sum())
    expected = np.sin(np.mean(prototypes, 0))
    found = module(module.prototypes(features[0], masks[0])[None])
    assert found.shape == (1, 1, 8)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-10)


def test_coarser_positions_are_averages():
    maps = torch.randn(1, 2, 6, 6)
    assert at_places(maps, None) is maps
    torch.testing.assert_close(at_places(maps, 3), torch.nn.functional.avg_pool2d(maps, 2))
