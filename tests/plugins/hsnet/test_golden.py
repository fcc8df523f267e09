"""Comparison with numbers of the authors' code: the pyramid on their weights and volumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from authors_numbers import Golden, fill

from fssbench_hsnet.pyramid import Pyramid

CHANNELS = {32: 3, 16: 6, 8: 4}  # ResNet-50
STEPS = (
    "encoder_layer4", "encoder_layer3", "encoder_layer2", "encoder_layer4to3",
    "encoder_layer3to2", "decoder1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("file", "seed", "sides"),
    [("small", 9101, (7, 13, 25)), pytest.param("400", 9201, (13, 25, 50), marks=pytest.mark.slow)],
)
@torch.no_grad()
def test_the_authors_pyramid(golden_folder, file, seed, sides):
    with np.load(golden_folder / f"hsnet_hpn_learner_{file}.npz") as stored:
        golden = Golden({}, dict(stored))
    pyramid = Pyramid(CHANNELS)
    fill(pyramid)
    seen = {}
    for name in STEPS:
        pyramid.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out.clone()})
        )
    volumes = {}
    for level, ((stride, channels), n) in enumerate(zip(CHANNELS.items(), sides, strict=True)):
        drawn = np.random.default_rng(seed + level).random((1, channels, n, n, n, n))
        volumes[stride] = torch.from_numpy(drawn.astype(np.float32))
    golden.near("logits", pyramid(volumes), 1e-5)
    for name in STEPS:
        stats, x = golden.arrays[f"{name}__stats"], seen[name].double().numpy()
        assert x.shape == tuple(golden.arrays[f"{name}__shape"])
        ours = [x.mean(), x.std(), np.abs(x).max(), x.min(), x.max()]
        assert np.abs(np.array(ours) - stats[1:]).max() <= 1e-5 * stats[3]
