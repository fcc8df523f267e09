"""RePRI: region proportion regularized inference (CVPR 2021)."""

from __future__ import annotations

from fssbench import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of RePRI."""
    return [
        MatcherSpec(
            name="repri",
            summary="a linear classifier fitted to support labels and to each query's statistics",
            factory="fssbench_repri.model:RePri",
            config="fssbench_repri.config:RePriConfig",
            stages="fssbench_repri.stages:stages",
            recipes="fssbench_repri:recipes.toml",
            importer="fssbench_repri.checkpoint:import_official",
            paper="Boudiaf et al., Few-Shot Segmentation Without Meta-Learning: A Good "
            "Transductive Inference Is All You Need?, CVPR 2021",
            licence="Apache-2.0",
            cite=("fssbench_repri:boudiaf2021repri",),
            parameter_counts={"resnet50-psp": 23_082_000},
            uses=("gradients",),
        )
    ]
