"""Exact float32 products on a GPU."""

from __future__ import annotations

import pytest
import torch

from fssbench.nn.exact import exact_float32


def switches():
    """Return the precision of (convolutions, matrix products)."""
    if hasattr(torch.backends.cudnn, "conv"):
        return (
            torch.backends.cudnn.conv.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
        )
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_inside_nothing_is_rounded_and_afterwards_all_is_as_before():
    before = switches()
    with exact_float32():
        assert switches() in (("ieee", "ieee"), (False, False))
    assert switches() == before

    @exact_float32()
    def fails():
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert switches() == before


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["convolution", "product"])
def test_against_float64_on_a_gpu(name):
    torch.manual_seed(0)
    if name == "product":
        inputs = torch.randn(512, 512), torch.randn(512, 512)
        operation = torch.mm
    else:
        inputs = torch.randn(4, 256, 32, 32), torch.randn(256, 256, 3, 3)
        operation = torch.nn.functional.conv2d
    exact = operation(*(x.double() for x in inputs))
    with exact_float32():
        found = operation(*(x.cuda() for x in inputs)).cpu().double()
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()  # TF32: 3e-4
