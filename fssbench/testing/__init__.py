"""What a plugin's author runs: the checks behind ``fssbench plugin check``, as classes of tests."""

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
