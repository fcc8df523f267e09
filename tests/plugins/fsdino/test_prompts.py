"""Equations 1 to 5 against plain float64 NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from fssbench.nn import correlation, cosine_map, masked_average
from fssbench_fsdino.prompts import CorrelationPrior, SemanticPrompt


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wide(tensor):
    return tensor.detach().double().numpy()


def test_correlation_of_an_image_with_itself_is_equation_1():
    features = maps(1, 6, 3, 4)
    found = correlation(features, features)[0].reshape(12, 12)
    rows = wide(features)[0].reshape(6, 12).T
    for i in range(12):
        for j in range(12):
            cosine = rows[i] @ rows[j] / np.sqrt((rows[i] ** 2).sum() * (rows[j] ** 2).sum())
            assert found[i, j].item() == pytest.approx(cosine, abs=1e-6)


def test_similarity_map_is_equation_2():
    query, support = maps(2, 6, 3, 4), maps(2, 6, 3, 4, seed=1)
    masks = torch.zeros(2, 3, 4)
    masks[0, :2], masks[1, 1:, 2:] = 1, 1
    found = cosine_map(query, masked_average(support, masks))
    for b in range(2):
        # The equation's 1 / HW: any factor of p cancels in the cosine.
        p = np.zeros(6)
        for i in range(3):
            for j in range(4):
                p += wide(masks)[b, i, j] * wide(support)[b, :, i, j] / 12
        for i in range(3):
            for j in range(4):
                f = wide(query)[b, :, i, j]
                cosine = p @ f / (np.linalg.norm(p) * np.linalg.norm(f))
                assert found[b, i, j].item() == pytest.approx(cosine, abs=1e-6)


def test_a_support_without_foreground_has_no_similarity():
    support = maps(1, 6, 3, 4)
    found = cosine_map(maps(1, 6, 3, 4), masked_average(support, torch.zeros(1, 3, 4)))
    assert torch.equal(found, torch.zeros(1, 3, 4))


def test_volume_is_equation_3():
    query, support = maps(2, 6, 3, 4), maps(2, 6, 2, 5, seed=1)
    found = correlation(query, support, normalise=False)
    assert found.shape == (2, 3, 4, 2, 5)
    expected = np.zeros(found.shape)
    for index in np.ndindex(*found.shape):
        b, i, j, k, m = index
        expected[index] = wide(query)[b, :, i, j] @ wide(support)[b, :, k, m]
    np.testing.assert_allclose(wide(found), expected, atol=1e-5)


@pytest.mark.parametrize("grid", [4, 5])
def test_refinement_is_equations_4_and_5(grid):
    torch.manual_seed(0)
    prior = CorrelationPrior(grid, width=8, channels=(4, 4, 4))
    half = (grid + 1) // 2
    places = half * half
    volume = maps(1, places, half, half)  # support places are channels
    found = wide(prior.refine(volume))[0]
    s = wide(volume)[0].reshape(half, half, half, half)  # hs, ws, hq, wq
    kernel, bias = wide(prior.depthwise.weight)[:, 0], wide(prior.depthwise.bias)
    mixing, offset = wide(prior.pointwise.weight)[:, :, 0, 0], wide(prior.pointwise.bias)
    for place in range(places):
        hs, ws = divmod(place, half)
        for hq in range(half):
            for wq in range(half):
                across = bias[place]
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        if 0 <= hq + dy < half and 0 <= wq + dx < half:
                            weight = kernel[place, dy + 1, dx + 1]
                            across += weight * s[hs, ws, hq + dy, wq + dx]
                out = hq * half + wq
                mixed = offset[out] + sum(
                    mixing[out, y * half + x] * s[hs, ws, y, x]
                    for y in range(half)
                    for x in range(half)
                )
                assert found[place, hq, wq] == pytest.approx(across + mixed, abs=1e-5)


def test_shrinking_uses_support_positions_as_channels():
    torch.manual_seed(0)
    prior = CorrelationPrior(5, width=8, channels=(4, 4, 4))
    volume = maps(2, 5, 5, 5, 5)
    first, second = prior.reduce
    channels = volume.permute(0, 3, 4, 1, 2).reshape(2, 25, 5, 5).contiguous()
    expected = functional.relu(second(functional.relu(first(channels))))
    found = prior.shrink(volume)
    assert found.shape == (2, 9, 3, 3)
    torch.testing.assert_close(found, expected)


def test_sizes_of_section_341_at_518_pixels():
    prior = CorrelationPrior(37)
    sizes = [tuple(conv.weight.shape) for conv in prior.reduce]
    assert sizes == [(512, 1369, 1, 1), (361, 512, 3, 3)]
    assert prior.depthwise.weight.shape == (361, 1, 3, 3)
    assert prior.pointwise.weight.shape == (361, 361, 1, 1)
    assert 3_500_000 <= sum(p.numel() for p in prior.parameters()) <= 4_500_000
    with torch.no_grad():
        assert prior.decode(torch.zeros(1, 361, 19, 19)).shape == (1, 148, 148)


def test_the_similarity_is_added_to_every_channel():
    torch.manual_seed(0)
    prior = CorrelationPrior(4, width=8, channels=(4, 4, 4))
    volumes, similarity = maps(1, 1, 4, 4, 4, 4), maps(1, 4, 4, seed=1)
    small = functional.interpolate(similarity[:, None], (2, 2), mode="bilinear")
    expected = prior.decode(prior.refine(prior.shrink(volumes[:, 0])) + small)
    torch.testing.assert_close(prior(volumes, similarity), expected)


def test_the_semantic_prompt_is_a_masked_mean_of_projected_features():
    torch.manual_seed(0)
    prompt = SemanticPrompt(6, width=8, inner=16)
    features, masks = maps(2, 6, 3, 4), torch.zeros(2, 3, 4)
    masks[0, 1, 2], masks[1, :2, :2] = 1, 0.5
    found = prompt(features, masks)
    projected = prompt.project(features)
    torch.testing.assert_close(found[0], projected[0, :, 1, 2])
    torch.testing.assert_close(found[1], projected[1, :, :2, :2].mean((1, 2)))
