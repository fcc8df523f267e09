"""The baseline, against a transcription of PANet's equations in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fssbench import BackboneInfo, FssbenchError, LayerInfo, matcher
from fssbench.nn import masked_average, masks_at

INFO = BackboneInfo(
    name="toy",
    layers={"shallow": LayerInfo(3, 2), "deep": LayerInfo(5, 4)},
    image_size=16,
    multiple=4,
)


def unit(vector):
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)


def reference(features, masks, query, scale):
    """One episode, float64: PANet equations 1, 2 and the cosine of equation 3, for K shots."""
    shots, channels, height, width = features.shape
    prototypes = np.zeros((2, channels))
    for k in range(shots):
        cells = masks[k].reshape(height, 4, width, 4)
        for value in (0, 1):
            share = (cells == value).mean(axis=(1, 3))
            mean = (features[k] * share).sum(axis=(1, 2)) / max(share.sum(), 1e-6)
            prototypes[value] += unit(mean) / shots
    prototypes = unit(prototypes)
    pixels = unit(query.reshape(channels, -1).T)
    cosines = pixels @ prototypes.T
    return (scale * (cosines[:, 1] - cosines[:, 0])).reshape(height, width)


@pytest.mark.parametrize("shots", [1, 5])
def test_equals_the_equations(shots):
    generator = np.random.default_rng(shots)
    features = generator.standard_normal((2, shots, 5, 4, 4))
    masks = generator.choice([0, 1, 255], (2, shots, 16, 16), p=[0.5, 0.4, 0.1]).astype(np.uint8)
    query = generator.standard_normal((2, 5, 4, 4))
    model = matcher("prototype", INFO, scale=7.0)
    arrays = {"deep": torch.from_numpy(query)}, {"deep": torch.from_numpy(features)}
    logits = model(*arrays, torch.from_numpy(masks))
    for b in range(2):
        expected = reference(features[b], masks[b], query[b], 7.0)
        np.testing.assert_allclose(logits[b].numpy(), expected, atol=1e-6)


def test_options():
    assert matcher("prototype", INFO).request().layers == ("deep",)
    request = matcher("prototype", INFO, layer="shallow", size=32).request()
    assert (request.layers, request.size) == (("shallow",), 32)
    with pytest.raises(FssbenchError, match="toy has no layer 'deeep'; did you mean 'deep'"):
        matcher("prototype", INFO, layer="deeep")


def test_it_holds_no_parameter():
    assert not list(matcher("prototype", INFO).parameters())


def test_masks_of_a_single_pixel_are_not_lost():
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[0, 5, 40] = 1
    share = masks_at(masks, 1, 4, 4)
    assert share.sum().item() == pytest.approx(1 / 256)
    assert share[0, 0, 2] > 0


def test_average_over_nothing_is_zero():
    assert masked_average(torch.ones(1, 3, 2, 2), torch.zeros(1, 2, 2)).abs().sum() == 0
