"""GF-SAM: graph-based prompts for SAM (NeurIPS 2024)."""

from __future__ import annotations

from fssbench import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of GF-SAM."""
    return [
        MatcherSpec(
            name="gf-sam",
            summary="SAM's masks of the most similar points, in clusters of points that they cover",
            factory="fssbench_gfsam.model:GfSam",
            config="fssbench_gfsam.config:GfSamConfig",
            encoders={"features": "dinov2-l", "masks": "promptable-sam-vit-h"},
            small_encoders={"features": "tiny-vit", "masks": "promptable-tiny-sam"},
            paper="Zhang, Gao, Jiao, Liu, Wei, Bridge the Points: Graph-based Few-shot Segment "
            "Anything Semantically, NeurIPS 2024",
            licence="Apache-2.0",
            cite=("fssbench_gfsam:zhang2024gfsam",),
        )
    ]
