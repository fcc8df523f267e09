"""Tests of trainings whose processes cannot be connected, or lose the connection."""

from __future__ import annotations

import os
import signal
import socket
import time

import methods_for_tests
import program
import pytest
import trainable_for_tests

TRAIN = (
    "train", "trainable", "--stage", "meta", "--validation-episodes", "0",
    "-d", "images_per_split=60", "--device", "cpu", "--workers", "0",
    "-p", methods_for_tests.__file__, "-p", trainable_for_tests.__file__,
)  # fmt: skip
# The other tasks start and wait, but never connect.
DELAY = """\
import os, time

if os.environ.get("LOCAL_RANK", "0") != "0":
    open("started", "w").write(str(os.getpid()))
    time.sleep(20)
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")


def start(folder, *arguments, **variables):
    return program.start(*TRAIN, *arguments, cwd=folder, env=variables)


def task(rank, port):
    """Variables of a task of srun."""
    return {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "3", "SLURM_PROCID": str(rank),
        "SLURM_NTASKS": "2", "SLURM_LOCALID": str(rank), "SLURM_STEP_TASKS_PER_NODE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port():
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


def is_written(path):
    return path.exists() and path.read_text()


def wait_until(condition):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.1)
    raise TimeoutError


def listens(port):
    with socket.socket() as each:
        return each.connect_ex(("127.0.0.1", port)) == 0


def test_sigterm_while_a_task_waits_for_another(tmp_path):
    port = free_port()
    process = start(tmp_path, **task(0, port))
    wait_until(lambda: listens(port) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert err.strip() == "fssbench: stopped by SIGTERM; run the same command again to resume"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_started_processes_end_with_the_first_one(tmp_path, number):
    (tmp_path / "delay.py").write_text(DELAY)
    process = start(tmp_path, "--devices", "2", "-p", "delay.py")
    wait_until(lambda: is_written(tmp_path / "started") or process.poll() is not None)
    process.send_signal(number)
    process.communicate(timeout=120)
    other = int((tmp_path / "started").read_text())
    wait_until(lambda: not program.is_running(other))
    assert process.returncode == (143 if number == signal.SIGTERM else -9)


@pytest.mark.slow
def test_a_task_that_dies(tmp_path):
    """Steps are endless; the file shows that they began."""
    port = free_port()
    tasks = [start(tmp_path, "--steps", "100000", **task(rank, port)) for rank in (0, 1)]
    wait_until(lambda: list(tmp_path.rglob("metrics.csv")) or tasks[0].poll() is not None)
    tasks[1].kill()
    _, err = tasks[0].communicate(timeout=240)
    tasks[1].communicate(timeout=240)
    assert tasks[0].returncode == 2, err
    assert "error: process 0 of 2 lost the connection to another one" in err
    assert "continue with --resume" in err
    assert "Traceback" not in err


def test_an_occupied_port(tmp_path):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        process = start(tmp_path, **task(0, port))
        _, err = process.communicate(timeout=240)
    assert process.returncode == 2, err
    assert f"cannot be connected at 127.0.0.1:{port}" in err
    assert "MASTER_PORT to a free port" in err
    assert "Traceback" not in err
