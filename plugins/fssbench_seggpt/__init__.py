"""SegGPT through the transformers library (ICCV 2023)."""

from __future__ import annotations

from typing import Any

from fssbench import BackboneSpec, MatcherSpec

_COMMON: dict[str, Any] = {
    "paper": "Wang et al., SegGPT: Segmenting Everything In Context, ICCV 2023",
    "licence": "Apache-2.0",
    "cite": ("fssbench_seggpt:wang2023seggpt",),
    "requires": ("transformers",),
    "extra": "fssbench[transformers]",
}
_MODELS = {
    "seggpt-vit-l": "SegGPT ViT-L/16, 371 M parameters, a whole in-context model",
    "seggpt-tiny": "SegGPT at a size for tests, without trained weights",
}


def fssbench_backbones() -> list[BackboneSpec]:
    """Return the specs of SegGPT's models."""
    return [
        BackboneSpec(
            name=name,
            summary=summary,
            factory="fssbench_seggpt.model:seggpt",
            arguments={"name": name},
            features=False,
            **_COMMON,
        )
        for name, summary in _MODELS.items()
    ]


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of SegGPT."""
    return [
        MatcherSpec(
            name="seggpt",
            summary="in-context painting: support, mask and query stitched into one image",
            factory="fssbench_seggpt.model:SegGpt",
            config="fssbench_seggpt.config:SegGptConfig",
            encoders={"model": "seggpt-vit-l"},
            small_encoders={"model": "seggpt-tiny"},
            **_COMMON,
        )
    ]
