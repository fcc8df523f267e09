"""FS-DINO: DINOv2 with an adapter distilled from SAM (Zhuo et al., arXiv 2504.15669v2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fssbench import MatcherSpec

if TYPE_CHECKING:
    import click


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of FS-DINO."""
    return [
        MatcherSpec(
            name="fsdino",
            summary="DINOv2 with an adapter taught by SAM, 4D correlation prompts, SAM's decoder",
            factory="fssbench_fsdino.model:FsDino",
            backbones=("tiny-vit", "*"),  # needs a vision transformer of one scale
            config="fssbench_fsdino.config:FsDinoConfig",
            stages="fssbench_fsdino.stages:stages",
            recipes="fssbench_fsdino:recipes.toml",
            importer="fssbench_fsdino.checkpoint:import_sam",
            aliases=("fs-dino",),
            paper="Zhuo et al., DINOv2-powered Few-Shot Semantic Segmentation: A Unified Framework "
            "via Cross-Model Distillation and 4D Correlation Mining, arXiv 2504.15669v2, 2025",
            licence="Apache-2.0",
            cite=("fssbench_fsdino:zhuo2025fsdino",),
            parameter_counts={"dinov2-b": 9_080_814},
        )
    ]


def fssbench_commands() -> list[click.Command]:
    """Return the verb ``analyse``."""
    from fssbench_fsdino.command import analyse

    return [analyse]
