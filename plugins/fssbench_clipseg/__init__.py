"""CLIPSeg through the transformers library (CVPR 2022)."""

from __future__ import annotations

from typing import Any

from fssbench import BackboneSpec, MatcherSpec

_COMMON: dict[str, Any] = {
    "paper": "Lüddecke, Ecker, Image Segmentation Using Text and Image Prompts, CVPR 2022",
    "licence": "Apache-2.0",
    "cite": ("fssbench_clipseg:luddecke2022clipseg",),
    "requires": ("transformers",),
    "extra": "fssbench[transformers]",
}
_MODELS = {
    "clipseg-rd64": "CLIPSeg with CLIP ViT-B/16 and the refined decoder, 151 M parameters",
    "clipseg-tiny": "CLIPSeg at a size for tests, without trained weights",
}


def fssbench_backbones() -> list[BackboneSpec]:
    """Return the specs of CLIPSeg's models."""
    return [
        BackboneSpec(
            name=name,
            summary=summary,
            factory="fssbench_clipseg.encoder:ClipSegModel",
            arguments={"name": name},
            features=False,
            **_COMMON,
        )
        for name, summary in _MODELS.items()
    ]


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the specs of CLIPSeg with image prompts and with text prompts."""
    return [
        MatcherSpec(
            name="clipseg",
            summary="CLIP with a light decoder, prompted by the support image",
            factory="fssbench_clipseg.model:ClipSeg",
            config="fssbench_clipseg.config:ClipSegConfig",
            encoders={"model": "clipseg-rd64"},
            small_encoders={"model": "clipseg-tiny"},
            **_COMMON,
        ),
        MatcherSpec(
            name="clipseg-text",
            summary="CLIP with a light decoder, prompted by the name of the class",
            factory="fssbench_clipseg.model:ClipSegText",
            config="fssbench_clipseg.config:ClipSegTextConfig",
            encoders={"model": "clipseg-rd64"},
            small_encoders={"model": "clipseg-tiny"},
            uses=("class_names",),
            **_COMMON,
        ),
    ]
