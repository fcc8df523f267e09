"""A simulated CUDA device, for tests on machines without a GPU."""

from __future__ import annotations

import contextlib
import copy
import functools
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from fssbench.nn import map_tensors

M = TypeVar("M", bound=nn.Module)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")

_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
_TORCH = str(Path(torch.__file__).parent)


class WaitError(Exception):
    """An operation that waits for the device: its result is needed by Python, or a copy blocks."""


@functools.cache
def works() -> bool:
    """Return whether this torch simulates a CUDA device: torch 2.6 needs a driver for slices."""
    try:
        with FakeCuda().computing():
            torch.zeros(1, device=CUDA)[:]
    except (AssertionError, RuntimeError):  # a torch without CUDA raises an AssertionError
        return False
    return True


class FakeCuda:
    """Tensors without values that claim to be on a CPU and a CUDA device.

    Shapes, dtypes and devices are computed as on a GPU; an operation on tensors of two devices
    raises a RuntimeError as there.
    """

    def __init__(self) -> None:
        # The first backward pass starts threads for the devices that torch counts, fake ones
        # included, and a process forked afterwards cannot use autograd. So it comes first.
        with torch.inference_mode(False), torch.enable_grad():
            torch.autograd.backward(torch.zeros(1, requires_grad=True).sum())
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def module(self, module: M) -> M:
        """Return a copy of a module with its parameters and buffers on the GPU."""
        module = copy.deepcopy(module)
        for each in module.modules():
            for tensors in (each._parameters, each._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        fake = self.tensors(tensor.detach(), CUDA)
                        if isinstance(tensor, nn.Parameter):
                            fake = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                        tensors[name] = fake
        return module

    def tensors(self, value: Any, device: torch.device = CPU) -> Any:
        """Return a value with all its tensors replaced; see `fssbench.nn.map_tensors`."""

        def replaced(tensor: Tensor) -> Tensor:
            fake = self._mode.from_tensor(tensor)
            with self._mode:
                return torch.empty_like(fake, device=device)

        return map_tensors(value, replaced)

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Run a block of operations on such tensors.

        Raises:
            WaitError: the block waits for the device: it reads a value (``item``, ``tolist``,
                ``if`` with a tensor), makes a tensor of a shape that depends on values
                (``nonzero``, indices by a mask), or copies between devices without
                ``non_blocking=True``.
        """
        try:
            with self._mode, _Copies():  # type: ignore[no-untyped-call]
                yield
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise WaitError(f"{error.args[0]} at {_location(error)}") from error


class _Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that raises `WaitError` at copies between devices that block."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        result = operation(*args, **kwargs)
        if operation in _COPIES:
            source = args[0] if operation is _COPIES[0] else args[1]
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            if source.device.type != result.device.type and not non_blocking:
                where = _location_of(traceback.extract_stack())
                raise WaitError(f"a blocking copy to {result.device.type} at {where}")
        return result


def _location(error: BaseException) -> str:
    return _location_of(traceback.extract_tb(error.__traceback__))


def _location_of(frames: traceback.StackSummary) -> str:
    """Return the innermost ``file.py:line`` outside of torch and of this module."""
    own = [f for f in frames if not f.filename.startswith(_TORCH) and f.filename != __file__]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
