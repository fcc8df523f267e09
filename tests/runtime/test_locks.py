from __future__ import annotations

import errno
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fssbench.errors import FssbenchError
from fssbench.runtime import locks
from fssbench.runtime.locked_folder import LockedFolder
from fssbench.runtime.locks import MARKER, Lock, LockedError

CODES = ["ENOLCK", "EOPNOTSUPP", "EINVAL", "ENOSYS"]
HOLD = """
import sys, time
from pathlib import Path
from fssbench.runtime import locks
if sys.argv[2]:
    import errno
    def no_lock(handle): raise OSError(errno.ENOSYS, "none")
    locks._lock = no_lock
with locks.Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


class Work(LockedFolder):
    identity_file = "work.json"
    work = "run"


@pytest.fixture(params=CODES)
def no_locks(request, monkeypatch):
    code = getattr(errno, request.param)

    def no_lock(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks, "_lock", no_lock)
    monkeypatch.setattr(locks, "_warned", set())


def holder(path: Path, marker: bool) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, path, "1" if marker else ""]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("marker", [False, True])
def test_another_process_holds_the_lock_until_it_is_killed(tmp_path, monkeypatch, marker):
    if marker:
        monkeypatch.setattr(locks, "_lock", lambda handle: (_ for _ in ()).throw(
            OSError(errno.ENOSYS, "none")))  # fmt: skip
    process = holder(tmp_path / "l", marker)
    try:
        with pytest.raises(LockedError, match="uses this file") as raised, Lock(tmp_path / "l"):
            pass
        assert not raised.value.elsewhere
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with Lock(tmp_path / "l", timeout=5):
        assert (tmp_path / f"l{MARKER}").exists() == marker
    assert not (tmp_path / f"l{MARKER}").exists()


def test_waiting_for_a_process(tmp_path):
    process = holder(tmp_path / "l", marker=False)
    started = time.monotonic()
    with pytest.raises(LockedError), Lock(tmp_path / "l", timeout=0.3):
        pass
    assert 0.3 <= time.monotonic() - started < 5
    process.kill()
    with Lock(tmp_path / "l", timeout=math.inf):
        process.wait()


def test_two_locks_of_one_process(tmp_path):
    with Lock(tmp_path / "l") as lock:
        with pytest.raises(LockedError), Lock(tmp_path / "l"):
            pass
        lock.release()
        lock.release()
        with Lock(tmp_path / "l"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_neither_holds_nor_releases_the_lock(tmp_path):
    lock = Lock(tmp_path / "l")
    lock.__enter__()
    child = os.fork()
    if child == 0:
        lock.release()
        time.sleep(20)
        os._exit(0)
    try:
        time.sleep(0.2)
        with pytest.raises(LockedError), Lock(tmp_path / "l"):
            pass
        lock.release()
        with Lock(tmp_path / "l"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, no_locks, caplog):
    with caplog.at_level(logging.WARNING), Work(tmp_path / "run", {"a": 1}):
        assert (tmp_path / "run" / f".lock{MARKER}").read_text().split() == [
            str(os.getpid()), socket.gethostname(),
        ]  # fmt: skip
        with pytest.raises(FssbenchError, match="uses this run folder"):
            Work(tmp_path / "run", {"a": 1}).__enter__()
    assert caplog.text.count("this file system has no locks") == 1
    assert "start no second process here" in caplog.text
    with Work(tmp_path / "run", {"a": 1}):
        pass
    with pytest.raises(OSError, match=r"\[Errno"), Lock(tmp_path / "l", markers=False):
        pass


@pytest.mark.parametrize("name", [f".lock{MARKER}", ".lock"])
def test_a_marker_of_another_host_is_named_and_never_waited_for(tmp_path, no_locks, name):
    folder = tmp_path / "run"
    folder.mkdir()
    marker = folder / name
    marker.write_text("71\nnode-a\n1234567\n")
    os.utime(marker, (time.time() - 3 * 3600 - 60,) * 2)
    with pytest.raises(FssbenchError) as raised:
        Work(folder, {}).__enter__()
    assert str(raised.value) == (
        f"{folder}: process 71 on host node-a uses this run folder, by its marker {marker}, which "
        "is 3 hours old; if that process has ended, remove the marker; otherwise wait until it "
        "ends, or choose another --out"
    )
    with pytest.raises(LockedError), Lock(folder / ".lock", timeout=math.inf):
        pass
    marker.unlink()
    with Work(folder, {}):
        pass


def test_a_marker_of_an_ended_process_of_this_host_is_removed(tmp_path, no_locks):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getpid()):  # in a container, a restarted process has the same id
        (tmp_path / f"l{MARKER}").write_text(f"{pid}\n{socket.gethostname()}\n")
        with Lock(tmp_path / "l"):
            pass


def test_other_errors_are_raised(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="No such file"), Lock(tmp_path / "no" / "l"):
        pass
    monkeypatch.setattr(
        locks, "_lock", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "broken"))
    )
    with pytest.raises(OSError, match="broken"), Lock(tmp_path / "l"):
        pass
