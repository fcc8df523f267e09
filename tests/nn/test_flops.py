"""Operations of fused attention are counted, forward and backward."""

from __future__ import annotations

import pytest
import torch
from fake_cuda_for_tests import needs_fake_cuda
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from fssbench.nn import selective_scan
from fssbench.nn.flops import flop_counter
from fssbench.testing.fake_cuda import FakeCuda


@pytest.mark.parametrize("masked", [True, False])
def test_attention(masked):
    heads, length, width = 4, 300, 16
    tokens = torch.rand(1, heads, length, width)
    mask = torch.zeros(1, 1, 1, length) if masked else None
    with torch.no_grad(), flop_counter() as counted:
        functional.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask)
    assert counted.get_total_flops() == 2 * 2 * heads * length**2 * width


def test_gradients_of_attention():
    tokens = torch.rand(1, 4, 300, 16, requires_grad=True)
    with flop_counter() as counted:
        functional.scaled_dot_product_attention(tokens, tokens, tokens).sum().backward()
    products = counted.get_total_flops() / (2 * 4 * 300**2 * 16)
    assert products in (6, 7)  # 2 forward, 4 backward; fused kernels compute the scores once more


@needs_fake_cuda
def test_counts_on_a_simulated_gpu():
    fake = FakeCuda()
    module = fake.module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(2), nn.Linear(49, 5)))
    images = fake.tensors(torch.rand(2, 3, 9, 9), torch.device("cuda"))
    with fake.computing(), flop_counter() as counted:
        module(images)
    assert counted.get_total_flops() == 2 * 2 * 4 * 49 * (3 * 9 + 5)


def test_selective_scan():
    u, delta = torch.rand(2, 4, 9), torch.rand(2, 4, 9)
    a, chosen = -torch.rand(4, 3), torch.rand(2, 2, 3, 9)
    with flop_counter() as counted:
        selective_scan(u, delta, a, chosen, chosen, torch.ones(4))
    assert counted.get_total_flops() == 2 * 4 * 9 * (9 * 3 + 1)
    selective_scan(u, delta, a, chosen, chosen)  # not in the context
    assert counted.get_total_flops() == 2 * 4 * 9 * (9 * 3 + 1)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(7, 5), (3, 4, 7)),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)), (2, 3, 9, 9)),
        (nn.ConvTranspose2d(3, 4, 2, 2), (1, 3, 5, 5)),
        (nn.MultiheadAttention(8, 2, batch_first=True), (2, 5, 8)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("backward", [False, True])
def test_counts_are_those_of_torch(module, shape, backward):
    given = [torch.rand(shape)] * (3 if isinstance(module, nn.MultiheadAttention) else 1)

    def compute():
        output = module(*given)
        output = output[0] if isinstance(output, tuple) else output
        if backward:
            output.sum().backward()

    with FlopCounterMode(display=False) as expected:
        compute()
    with flop_counter() as counted:
        compute()
    assert counted.get_total_flops() == expected.get_total_flops() > 0
