"""DCAMA: dense cross-query-and-support attention weighted mask aggregation (ECCV 2022)."""

from __future__ import annotations

from fssbench import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of DCAMA."""
    return [
        MatcherSpec(
            name="dcama",
            summary="query mask = support masks weighted by dense multi-layer cross attention",
            factory="fssbench_dcama.ablations:dcama",
            config="fssbench_dcama.config:DcamaConfig",
            stages="fssbench_dcama.stages:stages",
            recipes="fssbench_dcama:recipes.toml",
            importer="fssbench_dcama.checkpoint:import_official",
            paper="Shi et al., Dense Cross-Query-and-Support Attention Weighted Mask Aggregation "
            "for Few-Shot Segmentation, ECCV 2022",
            licence="Apache-2.0",
            cite=("fssbench_dcama:shi2022dcama",),
            parameter_counts={"resnet50": 14_215_394},
        )
    ]
