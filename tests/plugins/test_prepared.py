"""Prepared supports and queries give the same logits as the direct calls."""

from __future__ import annotations

import pytest
import torch

import fssbench
from fssbench.inference.pipeline import Pipeline

CASES = [
    ("dcama", "tiny-resnet", {}),
    ("dcama", "tiny-resnet", {"support_skip": False}),
    ("dcama", "tiny-resnet", {"output": "1/8"}),
    ("dcama", "tiny-resnet", {"pixels": 8}),
    ("dcama", "tiny-resnet", {"background": False}),
    *[("dcama", "tiny-resnet", {"shots": how}) for how in ("voting", "averaging", "hsnet", "scl")],
    ("hdmnet", "tiny-resnet", {"grid": 8}),
    ("hdmnet", "tiny-resnet", {"grid": 8, "ensemble": False}),
    ("hdmnet", "tiny-resnet", {"grid": 8, "shots": 3}),
    ("hdmnet", "tiny-resnet", {"grid": 8, "support_mask": False}),
    *[
        ("hdmnet", "tiny-resnet", {"grid": 8, "matching": how})
        for how in ("cross-attention", "cosine", "cosine-softmax")
    ],
    ("hsnet", "tiny-resnet", {}),
    ("hsnet", "tiny-resnet", {"support_mask": False}),
    ("fsdino", "tiny-vit", {}),
    ("fsdino", "tiny-vit", {"volume": "dot", "support": "all"}),
    ("fsdino", "tiny-vit", {"correlation": "prototype", "prompts": "initial"}),
    ("fsdino", "tiny-vit", {"prompts": "none", "prior": "probability"}),
    ("uinofss", "tiny-vit", {"channels": 8}),
    ("uinofss", "tiny-vit", {"channels": 8, "prompts": "none", "pool": "foreground"}),
    ("uinofss-comp", "tiny-vit", {}),
]


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize(("name", "backbone", "options"), CASES)
def test_one_batch_and_one_image_at_a_time_agree(name, backbone, options, shots):
    torch.manual_seed(0)
    encoder = fssbench.backbone(backbone, "random")
    pipeline = Pipeline(
        fssbench.matcher(name, encoder, **options), encoder, device=torch.device("cpu")
    )
    size = pipeline.request.size
    images = torch.randint(0, 256, (2 * shots + 2, 3, size, size), dtype=torch.uint8)
    masks = torch.zeros(2, shots, size, size, dtype=torch.uint8)
    masks[0, :, size // 4 : size // 2, : size // 2] = 1
    # Without background; but thresholds of a map that is the same everywhere mean nothing.
    masks[1, 0, : size // 2 if "output" in options else size] = 1
    masks[1, 1:, :2, :3] = 1  # too small for a coarse grid
    masks[0, 0, :2] = 255
    features = pipeline.encode(images)
    supports, queries = [features[:shots], features[shots : 2 * shots]], features[2 * shots :]
    layers = pipeline.request.layers
    with torch.inference_mode():
        expected = pipeline.matcher(
            {name: torch.stack([f[name] for f in queries]) for name in layers},
            {
                name: torch.stack([torch.stack([f[name] for f in each]) for each in supports])
                for name in layers
            },
            masks,
        )
    prepared = [
        [pipeline.prepare_support(f, m) for f, m in zip(each, own, strict=True)]
        for each, own in zip(supports, masks, strict=True)
    ]
    asked = [pipeline.prepare_query(query) for query in queries]
    together = pipeline.segment(asked, pipeline.embed_support(prepared))
    close(together, expected)
    for episode in range(2):
        alone = pipeline.segment([asked[episode]], pipeline.embed_support([prepared[episode]]))
        close(alone[0], expected[episode])


def close(found, expected):
    if expected.abs().eq(1).all():  # binarised: a place near the threshold may fall either way
        assert (found != expected).float().mean() < 0.05
    else:
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
