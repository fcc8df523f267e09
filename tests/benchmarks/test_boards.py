"""Time and memory of `fssbench board build` and `check` of many generated records."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_report import TABLES
from board_records import write_records

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]

TITLE = "Boards"
REPOSITORY = Path(__file__).resolve().parents[2]
GIB = 1 << 30


def sizes() -> list[tuple[int, int]]:
    """Numbers of records and of episodes, e.g. from ``5000x1000,500x10000``."""
    text = os.environ.get("FSSBENCH_BENCH_BOARDS", "160x1000,640x1000")
    return [tuple(map(int, size.split("x"))) for size in text.split(",")]


def memory(process: int) -> int:
    """Return the resident bytes of a process and its children; shared pages count once."""
    total = 0
    with contextlib.suppress(OSError):  # the process has ended
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = 1024 * int(line.split()[1])
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(map(memory, map(int, (task / "children").read_text().split())))
    return total


def run(checkout: Path, cache: Path, *arguments: object) -> tuple[float, float, int]:
    """Run ``fssbench board`` of a checkout; return seconds, CPU seconds and peak memory."""
    paths = os.pathsep.join(map(str, (checkout, checkout / "plugins")))
    environment = {**os.environ, "FSSBENCH_CACHE": str(cache), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "fssbench", "board", *map(str, arguments)]
    before, started, peak = os.times(), time.monotonic(), 0
    with subprocess.Popen(
        command, env=environment, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.2)
        assert process.stderr is not None
        assert process.returncode == 0, process.stderr.read().decode()
    after = os.times()
    spent = sum(after[2:4]) - sum(before[2:4])
    return time.monotonic() - started, spent, peak


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_time_grows_with_the_number_of_records(tmp_path):
    """`FSSBENCH_BENCH_BEFORE` names another checkout to measure in the same run."""
    checkouts = {"now": REPOSITORY}
    if before := os.environ.get("FSSBENCH_BENCH_BEFORE"):
        checkouts = {"before": Path(before).resolve(), **checkouts}
    each: dict[int, list[float]] = {}
    for records, episodes in sizes():
        runs = tmp_path / f"runs-{records}x{episodes}"
        written, pages = write_records(runs, records, episodes), []
        for name, checkout in checkouts.items():
            board, cache = runs.with_name(f"board-{name}"), runs.with_name(f"cache-{name}")
            other = runs.with_name(f"cache-of-check-{name}")
            steps = {
                "build": (cache, "build", runs, "--out", board),
                "build again": (cache, "build", runs, "--out", board),
                "check, no cache": (other, "check", board),
                "check": (cache, "check", board),
            }
            for step, (folder, *arguments) in steps.items():
                seconds, spent, peak = run(checkout, folder, *arguments)
                TABLES[TITLE].append(
                    {
                        "records": written, "episodes": episodes, "code": name, "command": step,
                        "s": f"{seconds:.1f}", "CPU s": f"{spent:.1f}",
                        "MiB": round(peak / (1 << 20)),
                    }
                )  # fmt: skip
                if name == "now":
                    assert peak < 2 * GIB
                    if step == "build":
                        each.setdefault(episodes, []).append(spent / written)
            pages.append([path.read_text() for path in sorted(board.glob("*.md"))])
        assert pages[0] == pages[-1]
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
    for costs in each.values():
        assert costs[-1] < 1.5 * costs[0]
