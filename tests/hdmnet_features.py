"""HDMNet: random features and masks of a small backbone, for tests of the method."""

from __future__ import annotations

import torch

import fssbench
from fssbench import BackboneInfo, LayerInfo
from fssbench_hdmnet.stages import stages

SIZE = 64
INFO = BackboneInfo(
    name="three-scales",
    layers={
        "a0": LayerInfo(8, 4),
        "b0": LayerInfo(16, 8),
        "c0": LayerInfo(24, 16),
        "d0": LayerInfo(32, 32),
    },
    image_size=SIZE,
    multiple=32,
)


def make(**options):
    torch.manual_seed(0)
    return fssbench.matcher("hdmnet", INFO, **{"grid": 8, "base_classes": 4, **options})


def stage_of(matcher, name="meta"):
    return next(stage for stage in stages(matcher) if stage.name == name)


def features(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in ("b0", "c0", "d0"):
        layer = INFO.layer(name)
        side = SIZE // layer.stride
        found[name] = torch.randn(*batch, layer.channels, side, side, generator=generator).relu()
    return found


def masks_of(batch, shots):
    masks = torch.zeros(batch, shots, SIZE, SIZE, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 8 + 4 * k : 40, 4 + 8 * b : 44] = 1
    return masks


def part(maps, *index):
    return {name: each[index] for name, each in maps.items()}


def run(matcher, query, support, masks):
    with torch.no_grad():
        return matcher(query, support, masks)


def episodes(batch=2, shots=1, **changes):
    masks, query_masks = masks_of(batch, shots), masks_of(batch, 1)[:, 0].flip(1)
    labels = torch.zeros_like(query_masks)
    labels[query_masks == 1] = 2
    return fssbench.EpisodeBatch(
        **{
            "class_ids": torch.full((batch,), 7),
            "query": features(batch),
            "support": features(batch, shots, seed=1),
            "query_masks": query_masks,
            "support_masks": masks,
            "query_images": torch.zeros(batch, 3, SIZE, SIZE),
            "support_images": torch.zeros(batch, shots, 3, SIZE, SIZE),
            "classes": (5, 7, 8, 9),
            "query_labels": labels,
            **changes,
        }
    )
