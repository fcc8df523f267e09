"""Conformance tests for plugins: the checks of ``fssbench plugin check`` as test classes."""

from fssbench.testing.check import NonconformityError as NonconformityError
from fssbench.testing.conformance import BackboneConformance as BackboneConformance
from fssbench.testing.conformance import DatasetConformance as DatasetConformance
from fssbench.testing.conformance import ImageMatcherConformance as ImageMatcherConformance
from fssbench.testing.conformance import MatcherConformance as MatcherConformance
from fssbench.testing.conformance import MetricConformance as MetricConformance
from fssbench.testing.conformance import SamplerConformance as SamplerConformance
