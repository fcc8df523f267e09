"""The selective scan without a kernel: against the loop over time steps, both in one run."""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from bench_report import TABLES

from fssbench.nn import selective_scan

pytestmark = pytest.mark.benchmark

LENGTH = 4096
# (b, d, n, g), and how many times faster the scan must be at least. The loop's cost is that of its
# calls until its vectors get long; the scan's is that of its numbers. So the wider, the nearer.
SIZES = {
    "narrow": (1, 16, 1, 4),
    "middle": (1, 64, 1, 4),
    "states": (1, 16, 16, 1),
    "wide": (1, 256, 1, 4),
}
LEAST = {"narrow": 20, "middle": 20, "states": 8, "wide": 4}


def loop(u, delta, A, B, C):
    """The recurrence as one writes it down, all that does not depend on the state beforehand."""
    channels = u.shape[1]
    B, C = (x.repeat_interleave(channels // x.shape[1], 1) for x in (B, C))
    decays = torch.exp(delta[..., None] * A[:, None]).unbind(2)  # L times (b, d, n)
    driven = ((delta * u)[..., None] * B.transpose(2, 3)).unbind(2)
    h, steps = torch.zeros_like(driven[0]), []
    for decay, drive, c in zip(decays, driven, C.unbind(3), strict=True):
        h = decay * h + drive
        steps.append((h * c).sum(-1))
    return torch.stack(steps, -1)


@pytest.fixture(params=SIZES)
def inputs(request):
    torch.manual_seed(0)
    batch, channels, states, groups = SIZES[request.param]
    return request.param, (
        torch.randn(batch, channels, LENGTH),
        0.1 * torch.rand(batch, channels, LENGTH),
        -torch.rand(channels, states) - 0.1,
        torch.randn(batch, groups, states, LENGTH),
        torch.randn(batch, groups, states, LENGTH),
    )


def seconds(call, rounds=3):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def with_gradients(function, inputs):
    """Of all inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    function(*leaves).sum().backward()
    return [x.grad for x in leaves]


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_times_faster_than_the_loop(inputs, backward, benchmark):
    name, inputs = inputs

    def run(function):
        if backward:
            return with_gradients(function, inputs)
        with torch.inference_mode():
            return [function(*inputs)]

    for ours, theirs in zip(run(selective_scan), run(loop), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
    slow = seconds(lambda: run(loop))
    benchmark.pedantic(run, args=(selective_scan,), rounds=7, warmup_rounds=1)
    times = slow / benchmark.stats.stats.median
    benchmark.extra_info.update(loop_seconds=slow, times=times)
    TABLES["selective scan against the loop over 4,096 steps"].append(
        {
            "size": name, "(b, d, n, g)": str(SIZES[name]),
            "work": "forward and backward" if backward else "forward",
            "loop, ms": f"{1000 * slow:.1f}",
            "scan, ms": f"{1000 * benchmark.stats.stats.median:.2f}", "times": f"{times:.0f}",
        }
    )  # fmt: skip
    assert times >= LEAST[name]
