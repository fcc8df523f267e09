"""INSID3: in-context segmentation with DINOv3 alone (CVPR 2026)."""

from __future__ import annotations

from fssbench import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of INSID3."""
    return [
        MatcherSpec(
            name="insid3",
            summary="clusters of DINOv3 features that match the supports, without training",
            factory="fssbench_insid3.model:Insid3",
            config="fssbench_insid3.config:Insid3Config",
            encoders={"features": "dinov3-l"},
            small_encoders={"features": "filterbank"},
            paper="Cuttano, Trivigno, Reich, Cremers, Masone, Roth, INSID3: Training-Free "
            "In-Context Segmentation with DINOv3, CVPR 2026",
            licence="Apache-2.0",
            cite=("fssbench_insid3:cuttano2026insid3",),
        )
    ]
