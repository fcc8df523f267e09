"""The command line in a process of its own, started without importing the libraries again.

A new interpreter needs seconds for torch, timm and pandas. On Linux, each process of tests starts
one interpreter that imports them and computes nothing, and commands are forked from it, with the
arguments, environment and working folder that the test gives. Elsewhere they are new interpreters.

Forked commands have the string hashes of their interpreter, and variables that a library reads when
it is imported have the values of the first command. What other processes write after the end of a
command is not in its output.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy

# Every evaluation and training imports these.
_LIBRARIES = ("torch", "timm", "pandas", "scipy.special", "rich.progress", "safetensors.torch")
_LARGEST = 1 << 20  # bytes of a request


def run(
    *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``fssbench ARGUMENTS`` to its end.

    Args:
        arguments: arguments of the command line.
        env: variables of the environment besides those of this process.
        cwd: working folder; None for that of this process.
    """
    started = start(*arguments, env=env, cwd=cwd)
    out, err = started.communicate()
    return subprocess.CompletedProcess(started.args, started.returncode, out, err)


def start(
    *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | str | None = None
) -> Any:
    """Start ``fssbench ARGUMENTS``.

    Returns:
        Object with `pid`, `returncode`, `poll`, `wait`, `communicate`, `send_signal` and `kill`, as
        those of `subprocess.Popen`.
    """
    words = [str(each) for each in arguments]
    environment = {**os.environ, **(env or {})}
    if sys.platform == "linux":
        return _Forked(words, environment, str(cwd or Path.cwd()))
    return subprocess.Popen(
        [sys.executable, "-m", "fssbench", *words], text=True, cwd=cwd, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def is_running(pid: int) -> bool:
    """Return True if a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except ProcessLookupError:
        return False
    except OSError:  # a system without /proc
        return sys.platform != "linux"


class _Forked:
    """A command forked from the interpreter with the libraries."""

    def __init__(self, arguments: list[str], env: dict[str, str], cwd: str) -> None:
        self.args = arguments
        self._encoding = _encoding(env)
        self.returncode: int | None = None
        self._streams: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        status, theirs = os.pipe()
        self._status = os.fdopen(status)
        request = json.dumps({"arguments": arguments, "env": env, "cwd": cwd}).encode()
        fds = [*(stream.fileno() for stream in self._streams), theirs]
        socket.send_fds(_server()[0], [request], fds)
        os.close(theirs)
        self.pid = self._number()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = self._number()
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        texts = []
        for stream in self._streams:
            stream.seek(0)
            texts.append(stream.read().decode(self._encoding, "replace"))
            stream.close()
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _number(self) -> int:
        line = self._status.readline()
        if not line:
            raise RuntimeError("the interpreter that forks commands has ended")
        return int(line)


def _encoding(env: Mapping[str, str]) -> str:
    return env.get("PYTHONIOENCODING", "utf-8")


@functools.cache
def _server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    return ours, process  # it ends when this process closes the socket


def _serve(connection: socket.socket) -> None:
    """Fork a process for each request until the socket is closed."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # collections would copy the memory that the commands share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _LARGEST, 3)
        if not message:
            return
        if os.fork() == 0:
            connection.close()
            _watch(json.loads(message), *fds)
            return
        for each in fds:
            os.close(each)


def _watch(request: Mapping[str, Any], out: int, err: int, status: int) -> None:
    """Fork the command, and write its process id, and then its exit code, to the pipe."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _run(request, out, err)
    os.write(status, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, f"{code}\n".encode())
    os._exit(0)


def _run(request: Mapping[str, Any], out: int, err: int) -> None:
    """Run a command with the streams, environment and folder of its request."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    numpy.random.seed()  # as in a new interpreter
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    encoding = _encoding(os.environ)
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    path = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[0:1] = [request["cwd"], *path]
    sys.argv = ["fssbench", *request["arguments"]]
    runpy.run_module("fssbench", run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
