"""HSNet: hypercorrelation squeeze network (ICCV 2021)."""

from __future__ import annotations

from fssbench import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of HSNet."""
    return [
        MatcherSpec(
            name="hsnet",
            summary="4D correlations of all layers, squeezed by centre-pivot 4D convolutions",
            factory="fssbench_hsnet.model:HsNet",
            config="fssbench_hsnet.config:HsNetConfig",
            stages="fssbench_hsnet.stages:stages",
            recipes="fssbench_hsnet:recipes.toml",
            importer="fssbench_hsnet.checkpoint:import_official",
            paper="Min, Kang, Cho, Hypercorrelation Squeeze for Few-Shot Segmentation, ICCV 2021",
            licence="Apache-2.0",
            cite=("fssbench:min2021hsnet",),
            parameter_counts={"resnet50": 2_573_794, "resnet101": 2_587_394},
        )
    ]
