"""Peak memory of full-size evaluations on a CPU, encoder and all, with random weights."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark

GIB = 1 << 30
# The kernel's own account of the largest resident set of the one child, in KiB on Linux.
MEASURE = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "fssbench", *sys.argv[1:]], check=True, stdout=2)
print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak(matcher, shots, out, episodes):
    """Bytes that `fssbench evaluate` holds at most: DINOv2-B, 518 pixels, one chunk, no loaders."""
    command = [
        "evaluate", matcher, "--backbone", "dinov2-b", "--weights", "random", "--fold", "0",
        "--shots", str(shots), "--limit", str(episodes), "--workers", "0", "--device", "cpu",
        "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
@pytest.mark.timeout(3600)
class TestPeakMemory:
    def test_fsdino_takes_less_than_6_gib(self, tmp_path, benchmark):
        bytes_ = benchmark.pedantic(peak, args=("fsdino", 1, tmp_path, 4), rounds=1)
        benchmark.extra_info["gib"] = bytes_ / GIB
        assert bytes_ < 6 * GIB

    def test_uinofss_takes_less_than_8_gib_and_hardly_more_with_shots(self, tmp_path, benchmark):
        one = benchmark.pedantic(peak, args=("uinofss", 1, tmp_path, 1), rounds=1)
        five = peak("uinofss", 5, tmp_path, 1)
        benchmark.extra_info.update(gib=one / GIB, gib_of_5_shots=five / GIB)
        assert one < 8 * GIB
        assert five < 1.5 * one
