"""Connection between the processes of a training."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator

import torch.distributed
from lightning_fabric import Fabric

from fssbench.errors import FssbenchError, one_line
from fssbench.runtime import termination
from fssbench.runtime.launcher import launched

_PATIENCE = 30.0
"""Seconds until a message names the reason of the wait."""
_FIRST = "FSSBENCH_FIRST_PROCESS"
"""Variable that Fabric passes on to the processes that it starts."""
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def connected(fabric: Fabric) -> Iterator[None]:
    """Connect the processes for the block; those that Fabric starts end with the first one.

    Raises:
        FssbenchError: the processes cannot be connected, or the connection is lost.
    """
    try:
        _launch(fabric)
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        if not torch.distributed.is_initialized():
            address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise FssbenchError(
                f"the processes of this training cannot be connected at {address}: "
                f"{one_line(error)}; set MASTER_ADDR to the machine of the first process, and "
                "MASTER_PORT to a free port"
            ) from error
        raise FssbenchError(
            f"process {fabric.global_rank} of {fabric.world_size} lost the connection to another "
            "one, which has ended; see its messages, and continue with --resume"
        ) from error
    if fabric.world_size > 1:
        torch.distributed.destroy_process_group()


def _launch(fabric: Fabric) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[_FIRST] = str(os.getpid())
    elif launched() is None:
        termination.follow(int(os.environ.get(_FIRST, os.getppid())))
    waiting = threading.Timer(_PATIENCE, _log.warning, ("waiting for the other processes",))
    waiting.start()
    try:
        fabric.launch()
    finally:
        waiting.cancel()


def _is_of_connection(error: RuntimeError) -> bool:
    # gloo raises errors without a class of their own; so does torch 2.6 for an occupied port.
    unclassed = any(part in str(error) for part in ("/gloo/", "EADDRINUSE"))
    return isinstance(error, torch.distributed.DistError) or unclassed
