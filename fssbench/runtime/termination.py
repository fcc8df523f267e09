"""SIGTERM, which schedulers send before they end a preempted job, and Ctrl-C.

Python runs the handler of a signal in the main thread, between two of its own instructions. A call
of a library may not return, e.g. while torch waits for the other processes of a training; a thread
then ends the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

GRACE = 3.0
"""Seconds that a call of a library may delay the end of the process."""
_INTERVAL = 0.2
"""Seconds between two checks of the thread."""
_TEXTS = {signal.SIGINT: "stopped", signal.SIGTERM: "stopped by SIGTERM"}


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


_owner = 0  # process that called `install`
_deferring = False
_received = False
_handled = 0  # calls of the handler
_parent = 0  # process to follow


def install() -> None:
    """Make SIGTERM raise `Terminated` in this process, as Ctrl-C raises `KeyboardInterrupt`.

    If neither can be raised within `GRACE` seconds, the process ends.
    """
    global _owner, _received
    known, _owner, _received = _owner, os.getpid(), False
    signal.signal(signal.SIGTERM, _handle)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _handle)
    if known == _owner or os.name == "nt":
        return
    arrived, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    # A forked process would write its signals into the pipe of this one.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_watch, args=(arrived,), daemon=True, name="signals").start()


def received() -> bool:
    """Return True if SIGTERM was received within `deferred`."""
    return _received


def follow(parent: int) -> None:
    """End this process when its parent has ended; without effect unless `install` was called."""
    global _parent
    _parent = parent


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Note the first SIGTERM within the block, for `received`; a second one raises."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False


def report(error: BaseException | None) -> int:
    """Print the line of a stopped command, and return its exit code."""
    return _report(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


def _report(number: int) -> int:
    how = _TEXTS[signal.Signals(number)]
    sys.stderr.write(f"\nfssbench: {how}; run the same command again to resume\n")
    return 128 + number


def _handle(number: int, frame: FrameType | None) -> None:
    global _handled, _received
    _handled += 1
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    elif os.getpid() != _owner:  # a forked process has no work to save
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _deferring and not _received:
        _received = True
    else:
        raise Terminated


def _watch(arrived: int) -> NoReturn:
    """End the process at a signal that the main thread does not handle in time."""
    settled = 0  # calls of the handler for earlier signals
    since: float | None = None  # time of the first signal that is not handled
    signals: list[int] = []
    while True:
        if select.select([arrived], [], [], _INTERVAL)[0]:
            found = [n for n in os.read(arrived, 64) if n in _TEXTS]
            signals += found
            since = time.monotonic() if found and since is None else since
        if _parent and os.getppid() != _parent:
            os._exit(128 + signal.SIGTERM)
        if _handled > settled:
            settled, since = _handled, None
        elif since is None or time.monotonic() - since < GRACE:
            continue
        # One SIGTERM within `deferred` waits for the end of the step.
        elif not _deferring or signals != [signal.SIGTERM]:
            os._exit(_report(signals[-1]))
