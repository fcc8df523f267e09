"""HDMNet: hierarchical dense correlation distillation for few-shot segmentation (CVPR 2023)."""

from __future__ import annotations

from fssbench import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of HDMNet."""
    return [
        MatcherSpec(
            name="hdmnet",
            summary="decoupled feature pyramid, cosine matching along the query, distilled maps",
            factory="fssbench_hdmnet.model:HdmNet",
            config="fssbench_hdmnet.config:HdmNetConfig",
            stages="fssbench_hdmnet.stages:stages",
            recipes="fssbench_hdmnet:recipes.toml",
            importer="fssbench_hdmnet.checkpoint:import_official",
            paper="Peng et al., Hierarchical Dense Correlation Distillation for Few-Shot "
            "Segmentation, CVPR 2023",
            licence="Apache-2.0",
            cite=("fssbench:peng2023hdmnet",),
            parameter_counts={"resnet50-psp": 4_161_734},
        )
    ]
