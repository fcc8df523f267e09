"""What faults are injected with: processes that may die, bits that flip, and what must be the same.

Processes are forked, so that each of the many has nothing to import.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import resource
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import attrs

from fssbench import FssbenchError

RESULTS = ("manifest.jsonl.gz", "predictions.jsonl.gz", "rows.csv.gz")
"""What two runs of the same work have in common, byte for byte."""


@attrs.define
class Child:
    """A forked process that runs a function."""

    pid: int
    output: int

    def cpu(self) -> float:
        """Seconds that it has computed: a clock that does not mind how busy the machine is."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9
        except (OSError, IndexError):
            return float("inf")

    def kill_at(self, seconds: float) -> None:
        """kill -9 when it has computed for so long, unless it ends before."""
        while self.cpu() < seconds and not self._ended():
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> tuple[int, str]:
        """Exit code (2 for an `FssbenchError`, 1 for any other error, -9 when killed), message."""
        with os.fdopen(self.output, "rb") as file:
            message = file.read().decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), message

    def spent(self) -> float:
        """What it has computed for when it ends, which must be well."""
        whole = 0.0
        while (now := self.cpu()) != float("inf") and not self._ended():
            whole = now
            time.sleep(0.002)
        assert self.wait() == (0, "")
        return whole

    def _ended(self) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return True


def start(function: Callable[[], object]) -> Child:
    """Run a function in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    code, text = 1, ""
    try:
        function()
        code = 0
    except FssbenchError as error:
        code, text = 2, str(error)
    except BaseException:
        text = traceback.format_exc()
    finally:
        os.write(writer, text.encode()[-60_000:])
        os._exit(code)


def kill_until_it_ends(
    function: Callable[[], object], *, most: int, whole: float, generator: random.Random
) -> int:
    """Start a function and kill it at random, again and again; it may end well, but not badly.

    Args:
        function: goes on where it was killed.
        most: how often it is killed.
        whole: seconds that it computes when nobody kills it.
        generator: draws the moments.

    Returns:
        How often it was killed.
    """
    for killed in range(most):
        child = start(function)
        child.kill_at(generator.uniform(0, whole))
        code, message = child.wait()
        assert code in (0, -signal.SIGKILL), message
        if code == 0:
            return killed
    return most


def flipped(data: bytes, bit: int) -> bytes:
    """The same with one bit another one."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def results(out: Path) -> dict[str, bytes]:
    """Content of the files that must not differ, of the one finished run below a folder."""
    (record,) = out.rglob("record.json")
    assert not (record.parent / "journal.jsonl").exists()
    return {name: (record.parent / name).read_bytes() for name in RESULTS}


def peak() -> int:
    """MiB that this process ever took at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def obey_permissions() -> None:
    """Give up what lets root write into folders that nobody may write into (Linux)."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0
