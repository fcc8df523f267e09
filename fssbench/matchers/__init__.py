"""Matchers, and the registration of the training-free baseline."""

from __future__ import annotations

from fssbench.specs import MatcherSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """Return the spec of the baseline, which every method must beat."""
    return [
        MatcherSpec(
            name="prototype",
            summary="masked average pooling and cosine similarity; no training",
            factory="fssbench.matchers.prototype:Prototype",
            config="fssbench.matchers.prototype:PrototypeConfig",
            paper="Wang et al., PANet, ICCV 2019, section 3.2 (without training)",
            licence="Apache-2.0",
            cite=("fssbench:wang2019panet",),
        )
    ]
