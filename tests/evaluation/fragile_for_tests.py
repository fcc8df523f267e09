"""A plugin: `mixer` under another name, which waits for other processes, or dies, when it is told.

The environment says what happens, because settings of the matcher would be another run.
FRAGILE_MARKS: a folder where each process leaves a mark when it segments its first episode.
FRAGILE_WAIT: so many marks each process waits for, so that none does all chunks before others come.
FRAGILE_KILL: the process of this number kills itself after its mark.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from methods_for_tests import Mixer

from fssbench import MatcherSpec


def fssbench_matchers():
    return [MatcherSpec(name="fragile", summary="for tests", factory="fragile_for_tests:Fragile")]


def rank():
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    helps = spec is not None and spec.name == "fssbench.evaluation.worker_process"
    return os.environ.get("RANK", "1" if helps else "0")


class Fragile(Mixer):
    marked = False

    def segment(self, query, support):
        marks = Path(os.environ.get("FRAGILE_MARKS", os.devnull))
        if marks.is_dir() and not self.marked:
            self.marked = True
            (marks / str(os.getpid())).touch()
            self.wait(marks)
            if os.environ.get("FRAGILE_KILL") == rank():
                os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(query, support)

    def wait(self, marks):
        until = time.monotonic() + 400
        while len(list(marks.iterdir())) < int(os.environ.get("FRAGILE_WAIT", "0")):
            assert time.monotonic() < until, "the other processes do not come"
            time.sleep(0.05)
