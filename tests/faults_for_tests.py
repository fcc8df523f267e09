"""What faults are injected with: processes that may die, bits that flip, and what must be the same.

Processes are forked, so that each of the many has nothing to import.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
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


def obey_permissions() -> None:
    """Give up what lets root write into folders that nobody may write into (Linux)."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()) == 0
