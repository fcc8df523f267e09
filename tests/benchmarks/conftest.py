"""The tables of the benchmarks, printed at the end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench_report import TABLES, text_of


def pytest_terminal_summary(terminalreporter):
    parts = [text_of(title, rows) for title, rows in TABLES.items()]
    for part in parts:
        terminalreporter.write_line("")
        terminalreporter.write_line(part)
    if parts and "FSSBENCH_BENCH_TABLE" in os.environ:
        Path(os.environ["FSSBENCH_BENCH_TABLE"]).write_text("\n".join(parts))
