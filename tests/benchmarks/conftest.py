"""The tables of the benchmarks, printed at the end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from bench_report import TABLES, text_of


@pytest.fixture(autouse=True, scope="module")
def threads():
    """All cores, or as many as are asked for; other tests have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("FSSBENCH_BENCH_THREADS", os.cpu_count() or 1)))
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def table():
    """Write the tables after each benchmark, so that one that is cut off leaves its figures."""
    yield
    if TABLES and "FSSBENCH_BENCH_TABLE" in os.environ:
        Path(os.environ["FSSBENCH_BENCH_TABLE"]).write_text("\n".join(_texts()))
        sys.stdout.write(_texts()[-1].splitlines()[-1] + "\n")


def pytest_terminal_summary(terminalreporter):
    for text in _texts():
        terminalreporter.write_line("")
        terminalreporter.write_line(text)


def _texts():
    return [text_of(title, rows) for title, rows in TABLES.items()]
