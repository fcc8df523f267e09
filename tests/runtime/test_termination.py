"""Tests of SIGTERM: a clean end, and the same result after resuming."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import methods_for_tests
import program
import pytest
import torch
import trainable_for_tests
from safetensors.torch import load

SMALL = ("-d", "images_per_split=60", "--device", "cpu", "--workers", "0",
         "-p", methods_for_tests.__file__, "-p", trainable_for_tests.__file__)  # fmt: skip
EVALUATE = ("evaluate", "mixer", "--backbone", "pixels", "--fold", "0", "--limit", "80", *SMALL)
TRAIN = ("train", "trainable", "--stage", "meta", "--steps", "8", "--validation-episodes", "0",
         *SMALL)  # fmt: skip
SIGNALS = """\
import os, signal

def fssbench_episodes_measured(chunk):
    if chunk == 1:
        os.kill(os.getpid(), signal.SIGTERM)

def fssbench_step_finished(step):
    if step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")


@pytest.fixture
def preempting(tmp_path):
    path = tmp_path / "preempting.py"
    path.write_text(SIGNALS)
    return ("-p", str(path))


def command(*arguments, env=None):
    return program.run(*arguments, env=env)


def only(root, name):
    (path,) = root.rglob(name)
    return path.read_bytes()


def test_an_evaluation(tmp_path, preempting):
    stopped = command(*EVALUATE, "--out", tmp_path / "a", *preempting)
    assert stopped.returncode == 143, stopped.stderr
    assert "stopped by SIGTERM; run the same command again to resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert only(tmp_path / "a", "journal.jsonl").count(b"\n") == 2
    assert command(*EVALUATE, "--out", tmp_path / "a").returncode == 0
    assert command(*EVALUATE, "--out", tmp_path / "b").returncode == 0
    assert only(tmp_path / "a", "rows.csv.gz") == only(tmp_path / "b", "rows.csv.gz")


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_training_saves_the_step(tmp_path, preempting, devices):
    """The step after the signal is finished and saved; steps 0 to 4 are not repeated."""
    more = ("--devices", devices, "--out")
    stopped = command(*TRAIN, *more, tmp_path / "a", *preempting)
    assert stopped.returncode == 143, stopped.stderr
    assert "stopped by SIGTERM" in stopped.stderr
    steps = only(tmp_path / "a", "metrics.csv").decode().splitlines()[1:]
    assert [line.split(",")[0] for line in steps] == ["1", "2", "3", "4"]
    resumed = command(*TRAIN, *more, tmp_path / "a", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    straight = command(*TRAIN, *more, tmp_path / "b")
    assert straight.returncode == 0, straight.stderr
    found, expected = (load(only(tmp_path / each, "last.safetensors")) for each in "ab")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert only(tmp_path / "a", "metrics.csv") == only(tmp_path / "b", "metrics.csv")


def test_a_second_signal_ends_at_once(monkeypatch):
    from fssbench.runtime import termination

    before = signal.getsignal(signal.SIGTERM)
    try:
        termination.install()
        with termination.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert termination.received()
            with pytest.raises(termination.Terminated):
                os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        termination.install()
        signal.signal(signal.SIGTERM, before)


STUCK = """\
import contextlib, ctypes, sys
from fssbench.runtime import termination

termination.install()
with termination.deferred() if sys.argv[1] == "deferred" else contextlib.nullcontext():
    mutex = ctypes.create_string_buffer(128)
    lock = ctypes.CDLL(None).pthread_mutex_lock  # a call that no signal interrupts
    lock(mutex)
    print("waiting", flush=True)
    lock(mutex)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the size of a mutex is that of Linux")
@pytest.mark.parametrize(
    ("how", "signals", "code", "line"),
    [
        ("plain", [signal.SIGTERM], 143, "fssbench: stopped by SIGTERM; run the same command"),
        ("plain", [signal.SIGINT], 130, "fssbench: stopped; run the same command"),
        ("deferred", [signal.SIGTERM, signal.SIGTERM], 143, "fssbench: stopped by SIGTERM; run"),
        ("deferred", [signal.SIGTERM], None, ""),
    ],
)
def test_a_call_of_a_library_that_does_not_return(how, signals, code, line):
    """Python cannot run the handler of a signal then."""
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, how], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.5)
    for each in signals:
        process.send_signal(each)
        time.sleep(0.5)
    try:
        _, err = process.communicate(timeout=30 if line else 5)
    except subprocess.TimeoutExpired:
        process.kill()
        _, err = process.communicate()
        assert code is None
    else:
        assert process.returncode == code
    assert line in err
    assert err.strip().count("\n") == 0


def test_signals_of_a_forked_process_are_its_own():
    code = (
        "import os, signal, time\n"
        "from fssbench.runtime import termination\n"
        "termination.GRACE = 0.2\n"
        "termination.install()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    time.sleep(60)\n"
        "time.sleep(0.5)\n"
        "os.kill(child, signal.SIGTERM)\n"
        "assert os.waitpid(child, 0)[1] == signal.SIGTERM\n"
        "time.sleep(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_follows_its_parent():
    code = (
        "import os, time\n"
        "from fssbench.runtime import termination\n"
        "termination.install()\n"
        "termination.follow(os.getpid())  # not the parent\n"
        "time.sleep(60)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 143
