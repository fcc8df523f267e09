"""SIGTERM, which schedulers send before they end a preempted job."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


_owner = 0  # process that called `install`
_deferring = False
_received = False


def install() -> None:
    """Make SIGTERM raise `Terminated` in this process, as Ctrl-C raises `KeyboardInterrupt`."""
    global _owner, _received
    _owner, _received = os.getpid(), False
    signal.signal(signal.SIGTERM, _handle)


def received() -> bool:
    """Return True if SIGTERM was received within `deferred`."""
    return _received


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Note the first SIGTERM within the block, for `received`; a second one raises."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


def _handle(number: int, frame: FrameType | None) -> None:
    global _received
    if os.getpid() != _owner:  # a forked process has no work to save
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _deferring and not _received:
        _received = True
    else:
        raise Terminated
