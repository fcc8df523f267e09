"""Import of the authors' checkpoint files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fssbench import BackboneInfo, Imported
from fssbench_hdmnet.config import HdmNetConfig
from fssbench_hdmnet.model import HdmNet

_TRANSFORMER = "transformer.mix_transformer"
_BACKBONE = re.compile(r"layer[0-4]\.")
# The text before one of these is the prefix of a wrapper module.
_MARKS = (f"{_TRANSFORMER}.", "base_learnear.", "down_query.")

_COCO_CLASSES, _COCO_SIZE = 60, 633

# Prefixes of tensor names, ours and the authors'; the rest of a name is the same in both.
_PARTS = {
    "base.pyramid.levels": "ppm.features",
    "base.bottleneck": "cls",
    "base.classifier": "base_learnear",
    "reduce_support.project": "down_supp.0",
    "reduce_query.project": "down_query.0",
    "merge_support.project": "supp_merge.0",
    "merge_query.project": "query_merge.0",
    "ensemble.gram_merge": "gram_merge",
    "ensemble.base_merge": "cls_merge",
    "ensemble.reweight": "kshot_rw",
    "decoder.parse": f"{_TRANSFORMER}.parse_layers",
    "decoder.classify": f"{_TRANSFORMER}.cls",
}
_STAGE = {"embed": "0.projection", "embed_norm": "0.norm", "norm": "3"}
_BLOCK = {
    "norm1": "norm1",
    "attention.query": "attn.attn.linear_q",
    "attention.key": "attn.attn.linear_k",
    "attention.value": "attn.attn.linear_v",
    "attention.output": "attn.attn.linear_o",
    "attention.reduce": "attn.sr",
    "attention.norm": "attn.norm",
    "norm2": "norm2",
    "feed_forward.expand": "ffn.layers.0",
    "feed_forward.position": "ffn.layers.1",
    "feed_forward.reduce": "ffn.layers.4",
}


def import_official(tensors: Mapping[str, Tensor], backbone: BackboneInfo) -> Imported:
    """Map the authors' tensor names to ours; their files contain the backbone, too.

    The number of base classes and of shots is read from shapes. The size of images is in no tensor:
    60 base classes are those of COCO-20i, on which the authors take 633 pixels.

    Args:
        tensors: tensors of the authors' file, by name.
        backbone: names and shapes of the encoder's features.
    """
    prefix = next((n.partition(mark)[0] for mark in _MARKS for n in tensors if mark in n), "")
    named = {full.removeprefix(prefix): full for full in tensors}
    config: dict[str, Any] = {
        option: tensors[named[name]].numel() - background
        for option, name, background in (
            ("base_classes", "base_learnear.2.bias", 1),
            ("shots", "kshot_rw.2.bias", 0),
        )
        if name in named and tensors[named[name]].numel() > background
    }
    if config.get("base_classes") == _COCO_CLASSES:
        config["size"] = _COCO_SIZE
    ours = official_names(HdmNet(config=HdmNetConfig(**config), backbone=backbone))
    encoder = {name: tensors[full] for name, full in named.items() if _BACKBONE.match(name)}
    return Imported(
        weights={
            ours.get(name, full): tensors[full]
            for name, full in named.items()
            if name not in encoder
        },
        backbone=encoder,
        names={own: name for name, own in ours.items()},
        config=config,
    )


def official_names(matcher: HdmNet) -> dict[str, str]:
    """Return our tensor names by the authors' names."""
    parts = dict(_PARTS)
    for stage in range(len(matcher.pyramid.stages)):
        ours, theirs = f"pyramid.stages.{stage}", f"{_TRANSFORMER}.down_sample_layers.{stage}"
        parts |= {f"{ours}.{own}": f"{theirs}.{name}" for own, name in _STAGE.items()}
        for block in (0, 1):
            for own, name in _BLOCK.items():
                parts[f"{ours}.blocks.{block}.{own}"] = f"{theirs}.{block + 1}.{name}"
        ours, theirs = f"matching.{stage}", f"{_TRANSFORMER}.match_layers.{stage}"
        for own, name in _BLOCK.items():
            parts[f"{ours}.{own.removeprefix('attention.')}"] = f"{theirs}.0.{name}"
        parts |= {f"{ours}.fuse": f"{theirs}.1.conv", f"{ours}.fuse_norm": f"{theirs}.1.bn"}
    return {
        f"{theirs}{own.removeprefix(ours)}": own
        for own in matcher.state_dict()
        for ours, theirs in parts.items()
        if own.startswith(f"{ours}.")
    }
