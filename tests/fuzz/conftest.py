"""How many examples are tried: few, unless FSSBENCH_FUZZ=deep."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = {
    "deadline": None,  # machines that run tests are busy
    "database": None,
    "suppress_health_check": list(HealthCheck),
}
settings.register_profile("fast", max_examples=40, derandomize=True, **COMMON)
settings.register_profile("deep", max_examples=3000, **COMMON)
settings.load_profile(os.environ.get("FSSBENCH_FUZZ", "fast"))
