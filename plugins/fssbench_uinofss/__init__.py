"""UINO-FSS: FS-DINO with Mamba over the 4D correlation (Zhuo et al., arXiv 2504.15669v4)."""

from __future__ import annotations

from fssbench import MatcherSpec

_VARIANTS = {
    "uinofss": (
        "UinoFssConfig",
        "DINOv2 with an adapter taught by SAM, Mamba over 4D correlations, SAM's decoder",
    ),
    "uinofss-comp": (
        "UinoFssCompConfig",
        "compact UINO-FSS: a prototype's similarity map instead of the 4D correlations",
    ),
    "uinofss-comp-frozen": (
        "UinoFssCompFrozenConfig",
        "compact UINO-FSS that trains the semantic prompt alone; SAM's decoder is frozen",
    ),
}


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the specs of the full model and of the two compact ones (section V-C3)."""
    return [
        MatcherSpec(
            name=name,
            summary=summary,
            factory="fssbench_uinofss.model:UinoFss",
            backbones=("tiny-vit", "*"),  # needs a vision transformer of one scale
            config=f"fssbench_uinofss.config:{config}",
            stages="fssbench_uinofss.stages:stages",
            recipes="fssbench_uinofss:recipes.toml",
            aliases=(name.replace("uinofss", "uino-fss"),),
            paper="Zhuo et al., UINO-FSS: Unifying Representation Learning and Few-shot "
            "Segmentation via Hierarchical Distillation and Mamba-HyperCorrelation, arXiv "
            "2504.15669v4, 2025",
            licence="Apache-2.0",
            cite=("fssbench_uinofss:zhuo2025uinofss",),
        )
        for name, (config, summary) in _VARIANTS.items()
    ]
