"""Loader processes: items loaded ahead of their use, and errors raised in the main process."""

from __future__ import annotations

import ast
import logging
import multiprocessing
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fssbench.errors import FssbenchError
from fssbench.nn import map_tensors, tensors

log = logging.getLogger(__name__)

Key = TypeVar("Key")
T = TypeVar("T")

SHARED_MEMORY = Path("/dev/shm")


def load_ahead(
    load: Callable[[Key], T], keys: Iterable[Key], *, workers: int, pin: bool, advice: str
) -> Iterator[T]:
    """Yield the items of some keys in order, loaded ahead by processes.

    Tensors are passed in shared memory. Where it is nearly full, as in a Docker container with the
    default of 64 MiB, they are passed through pipes instead.

    Args:
        load: picklable function that loads an item.
        keys: keys of the items; an iterator is advanced whenever a process is free.
        workers: number of loader processes; 0 loads in this process.
        pin: True to copy tensors to pinned memory.
        advice: instruction for the user in case a process dies.

    Raises:
        FssbenchError: `load` raised it, or a loader process died.
    """
    if workers:
        _check_main_guard()
    loader: DataLoader[Any] = DataLoader(
        _Source(load),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        pin_memory=pin,
    )
    warned = False
    try:
        for item in loader:
            if isinstance(item, FssbenchError):
                raise item
            if isinstance(item, _Piped):
                if not warned:
                    warned = True
                    log.warning(
                        "%s is nearly full: loader processes pass images through pipes, which is "
                        "slower; in Docker, run with --shm-size=2g",
                        SHARED_MEMORY,
                    )
                item = item.restored()
            yield item
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise FssbenchError(
            f"a loader process died ({reason}); {advice}, with fewer --workers if memory is short"
        ) from error


def _check_main_guard() -> None:
    """Raise an `FssbenchError` if loader processes would run the user's script again.

    Where processes are not forked (macOS, Windows, Python 3.14), each of them imports the script,
    and the parent waits forever for a process that fails while it does so.
    """
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if multiprocessing.get_start_method() == "fork" or main.__spec__ is not None or not script:
        return
    try:
        tree = ast.parse(Path(script).read_bytes())
        guarded = any(
            isinstance(n, ast.If) and "__name__" in ast.unparse(n.test) for n in tree.body
        )
    except (OSError, SyntaxError):  # the script came from standard input, or is a notebook's
        guarded = False
    if not guarded:
        raise FssbenchError(
            f"{script}: loader processes import this script, which would run it again; put its "
            'calls under: if __name__ == "__main__": (or give workers=0)'
        )


class _Source(Dataset[Any]):
    """A torch dataset that is indexed by keys, so that keys can be created lazily."""

    def __init__(self, load: Callable[[Any], Any]) -> None:
        self.load = load

    def __getitem__(self, key: Any) -> Any:
        # A raised error would reach the user as a worker's traceback.
        try:
            item = self.load(key)
        except FssbenchError as error:
            return error
        return item if _fits(item) else _Piped(map_tensors(item, _Array))


@attrs.frozen(eq=False)
class _Piped:
    """An item whose tensors are arrays, which are pickled into a pipe."""

    item: Any

    def restored(self) -> Any:
        return map_tensors(self.item, lambda array: torch.from_numpy(array.values), kind=_Array)


class _Array:
    def __init__(self, tensor: Tensor) -> None:
        self.values: np.ndarray[Any, Any] = tensor.numpy()


def _fits(item: Any) -> bool:
    """Return True if shared memory has room for this item and one of each other process."""
    worker = get_worker_info()
    if worker is None or not SHARED_MEMORY.is_dir():
        return True
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors(item))
    return shutil.disk_usage(SHARED_MEMORY).free > (worker.num_workers + 1) * size
