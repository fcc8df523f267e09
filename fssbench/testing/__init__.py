"""Conformance tests for plugins: the checks of ``fssbench plugin check`` as test classes."""

from __future__ import annotations

from fssbench.testing.check import NonconformityError
from fssbench.testing.conformance import (
    BackboneConformance,
    DatasetConformance,
    MatcherConformance,
    MetricConformance,
    SamplerConformance,
)

__all__ = [
    "BackboneConformance",
    "DatasetConformance",
    "MatcherConformance",
    "MetricConformance",
    "NonconformityError",
    "SamplerConformance",
]
