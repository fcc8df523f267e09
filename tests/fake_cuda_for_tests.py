"""The mark of tests on a simulated CUDA device."""

from __future__ import annotations

import pytest
import torch

from fssbench.testing import fake_cuda

needs_fake_cuda = pytest.mark.skipif(
    not fake_cuda.works(), reason=f"torch {torch.__version__} simulates no GPU"
)
