"""SAM's image encoders: SAM's own numbers, files and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sam_for_tests
import torch

import fssbench
from fssbench import FssbenchError, registry
from fssbench.build import describe, parameters
from fssbench.specs import BackboneSpec

GOLDEN = Path(__file__).parent / "sam_encoder.npz"


@pytest.fixture(scope="module")
def sam_file(tmp_path_factory):
    """Return a file like those of SAM's authors, which include the decoder."""
    path = tmp_path_factory.mktemp("sam") / "sam_vit_tiny.pth"
    state = sam_for_tests.golden_encoder(GOLDEN)
    torch.save({**state, "mask_decoder.iou_token.weight": torch.zeros(1, 256)}, path)
    return path


def test_equals_sams_own_code(sam_file):
    backbone = fssbench.backbone("tiny-sam", sam_file)
    assert backbone.weights.source == "file"
    with torch.no_grad():
        neck = backbone(sam_for_tests.picture(160), ["neck"])["neck"]
    assert neck.shape == (1, 256, 10, 10)
    np.testing.assert_allclose(neck[0, ::8].numpy(), np.load(GOLDEN)["neck"], atol=1e-5)


def test_equals_the_installed_package():
    np.testing.assert_allclose(sam_for_tests.encoders_answer(), np.load(GOLDEN)["neck"], atol=1e-5)


# From SAM's paper and files: 91 M, 308 M and 636 M with the decoder.
@pytest.mark.parametrize(
    ("name", "blocks", "count"),
    [("b", 12, 89_670_912), ("l", 24, 308_278_272), ("h", 32, 637_026_048)],
)
def test_full_sizes(name, blocks, count):
    spec = registry.registry().get(BackboneSpec, f"sam-vit-{name}")
    info = describe(spec)
    assert list(info.layers) == [*(f"blocks.{n}" for n in range(blocks)), "neck"]
    assert (info.layers["neck"].channels, info.layers["neck"].stride) == (256, 16)
    assert info.image_size == 1024
    assert parameters(spec) == count


def test_random_weights_are_reproducible_and_distinguish_positions():
    first, second = (fssbench.backbone("tiny-sam", "random") for _ in range(2))
    grey = torch.full((1, 3, 160, 160), 0.5)
    one, other = (b(grey, ["neck"])["neck"] for b in (first, second))
    assert torch.equal(one, other)
    assert one.std(dim=(2, 3)).max() > 0.01


def test_layers_are_maps_and_other_sizes_work():
    backbone = fssbench.backbone("tiny-sam", "random")
    found = backbone(torch.rand(2, 3, 96, 160), ["blocks.1", "neck"])
    assert found["blocks.1"].shape == (2, 96, 6, 10)
    assert found["neck"].shape == (2, 256, 6, 10)
    alone = backbone(torch.zeros(1, 3, 96, 160), ["blocks.1"])["blocks.1"]
    assert alone.is_contiguous()


def test_there_are_no_pretrained_weights_of_the_tiny_one():
    with pytest.raises(FssbenchError, match="was never trained"):
        fssbench.backbone("tiny-sam")
