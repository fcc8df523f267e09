"""A simulated CUDA device, and the bundled methods on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from fake_cuda_for_tests import needs_fake_cuda
from torch import nn

from fssbench.testing.fake_cuda import CUDA, FakeCuda, WaitError

pytestmark = needs_fake_cuda


def test_shapes_and_devices_without_values():
    layer = nn.Conv2d(3, 5, 3)
    fake = FakeCuda()
    there = fake.module(layer)
    with fake.computing():
        output = there(torch.zeros(2, 3, 8, 8, device=CUDA))
    assert (output.shape, output.device.type) == ((2, 5, 6, 6), "cuda")
    assert layer.weight.device.type == "cpu"


def test_two_devices_do_not_mix():
    with pytest.raises(RuntimeError, match="cuda"), FakeCuda().computing():
        torch.zeros(3, device=CUDA) + torch.zeros(3)
    outside = torch.arange(3)
    with pytest.raises(RuntimeError, match="cuda"), FakeCuda().computing():
        torch.zeros(3, device=CUDA).add(outside)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool(x.any()),
        lambda x: float(x[0]),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: x.new_zeros(3).copy_(torch.zeros(3)),
        lambda x: x[[0, 2]],
        lambda x: torch.zeros(3).to(CUDA),
        lambda x: x.unique(),
    ],
)
def test_waits_are_errors_that_name_the_line(wait):
    with pytest.raises(WaitError, match=r"test_fake_cuda\.py:\d+"), FakeCuda().computing():
        wait(torch.ones(3, device=CUDA))


def test_copies_that_do_not_block():
    with FakeCuda().computing():
        assert torch.zeros(3).to(CUDA, non_blocking=True).device.type == "cuda"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
def test_a_forked_process_can_still_use_autograd():
    code = """
import os
import torch
from fssbench.testing.fake_cuda import FakeCuda
fake = FakeCuda()
with fake.computing():
    fake.tensors(torch.zeros(2), torch.device("cuda:0")) + 1
torch.zeros(1, requires_grad=True).sum().backward()
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
torch.zeros(1, requires_grad=True).sum().backward()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
