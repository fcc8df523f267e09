"""The base learner: against the authors' numbers, and layer by layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from authors_numbers import authors_state, picture, read_golden
from torch.nn import functional

from fssbench import build
from fssbench.nn import PspHead, PyramidPooling
from fssbench_hdmnet.base import base_channels
from fssbench_hdmnet.checkpoint import import_official

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden"
LISTING = GOLDEN / "weights_hdmnet_resnet50_1shot.tsv"


@pytest.fixture(scope="module")
def listing():
    """Names and shapes of the authors' complete model."""
    if not LISTING.is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    return LISTING


@pytest.fixture(scope="module")
def official(listing, tmp_path_factory):
    """The authors' encoder and base learner."""
    state = authors_state(listing)
    path = tmp_path_factory.mktemp("official") / "authors.pth"
    torch.save({"state_dict": state}, path)
    backbone = build.backbone("resnet50-psp", path)
    path.unlink()  # 200 MB
    learner = PspHead(2048, 16)
    weights = import_official(state, backbone.info).weights
    learner.load_state_dict(
        {n.removeprefix("base."): t for n, t in weights.items() if n.startswith("base.")}
    )
    return backbone, learner.eval()


def test_embedding_and_logits_are_those_of_the_authors(official):
    backbone, learner = official
    golden = read_golden(GOLDEN, "hdmnet_resnet50_pascal_1shot.npz")
    size = 473
    images = picture(golden.run["query_seed"], (1, 3, size, size))
    with torch.inference_mode():
        embedding = learner.embed(backbone(images, ["layer4"])["layer4"])
        logits = learner.classify(embedding)
    stats = golden.arrays["query_feat__stats"][5]
    found = embedding.double().numpy()
    assert list(embedding.shape) == golden.arrays["query_feat__shape"][5].tolist()
    first = golden.arrays["query_feat__first8"][5]
    assert np.abs(found.ravel()[:8] - first).max() <= 1e-5 * stats[3]
    own = [found.mean(), found.std(), np.abs(found).max(), found.min(), found.max()]
    assert np.abs(own - stats[1:]).max() <= 1e-5 * stats[3]
    golden.near("base_out_lowres", logits, 1e-5)
    whole = functional.interpolate(logits, (size, size), mode="bilinear", align_corners=True)
    golden.near("base_out", whole, 1e-5)
    counts = torch.bincount(whole.argmax(1).ravel(), minlength=16)
    expected = torch.from_numpy(golden.arrays["pred_base__hist"])
    assert (counts - expected).abs().sum() <= 4


def test_parameters_are_as_many_as_the_authors():
    learner = PspHead(2048, 16)
    count = {
        name: sum(p.numel() for p in part.parameters()) for name, part in learner.named_children()
    }
    assert count == {"pyramid": 4198400, "bottleneck": 18875392, "classifier": 8208}


def test_pyramid_keeps_the_map_and_appends_averages():
    pyramid = PyramidPooling(channels=8).eval()
    with torch.no_grad():
        for level in pyramid.levels:
            level[1].weight.copy_(torch.eye(2, 8)[:, :, None, None])
    x = torch.rand(2, 8, 12, 9)
    out = pyramid(x)
    assert out.shape == (2, 16, 12, 9)
    assert torch.equal(out[:, :8], x)
    # The first level is the mean everywhere; batch norm starts as 1 / sqrt(1 + eps).
    mean = x[:, :2].mean((2, 3)) / np.sqrt(1 + 1e-5)
    torch.testing.assert_close(out[:, 8:10], mean[:, :, None, None].expand(-1, -1, 12, 9))
    # The corners of the last level are the means of the corner cells (align_corners).
    corner = x[:, :2, :2, :2].mean((2, 3)) / np.sqrt(1 + 1e-5)
    torch.testing.assert_close(out[:, 14:, 0, 0], corner)


def test_embedding_is_not_changed_by_classification():
    learner = PspHead(8, 4, width=16).eval()
    embedding = learner.embed(torch.rand(1, 8, 7, 7))
    kept = embedding.clone()
    assert kept.min() < 0
    assert learner.classify(embedding).shape == (1, 4, 7, 7)
    assert torch.equal(embedding, kept)
    assert torch.equal(learner(torch.zeros(1, 8, 7, 7)), learner(torch.zeros(1, 8, 7, 7)))


def test_whole_channels_are_dropped_in_training():
    learner = PspHead(8, 4, width=64, dropout=0.5).train()
    seen = []
    learner.classifier[1].register_forward_hook(lambda _, inputs, out: seen.append((*inputs, out)))
    learner(torch.rand(2, 8, 6, 6))
    ((before, after),) = seen
    gone = (after == 0).flatten(2).all(2) & (before != 0).flatten(2).any(2)
    kept = torch.isclose(after, 2 * before).flatten(2).all(2)
    assert (gone | kept).all()
    assert gone.any()


@pytest.mark.parametrize("samples", [1, 2])
def test_a_batch_of_one_can_be_trained_on(samples):
    learner = PspHead(8, 4, width=16).train()
    x = torch.rand(samples, 8, 6, 6, requires_grad=True)
    learner(x).sum().backward()
    assert x.grad.isfinite().all()
    changed = learner.pyramid.levels[0][2].running_mean.any()
    assert changed == (samples > 1)  # nothing can be learned of one value's variance
    assert learner.pyramid.levels[1][2].running_mean.any()


def test_channels_of_classes():
    found = base_channels(torch.tensor([3, 19, 7, 5]), (5, 7, 19))
    assert found.tolist() == [0, 3, 2, 1]
