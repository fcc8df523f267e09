"""Modes of computation, and the restoration of what a method changes at test time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from fssbench.errors import FssbenchError
from fssbench.nn.exact import exact_float32
from fssbench.runtime.device import Precision


@contextlib.contextmanager
def computing(
    device: torch.device, precision: Precision, *, gradients: bool | None = None
) -> Iterator[None]:
    """Run a block with the precision of an evaluation.

    Args:
        device: device of the computation.
        precision: ``bf16`` runs under autocast; ``fp32`` is full float32 on a GPU too, not TF32.
        gradients: None for inference mode, whose tensors can never require gradients; otherwise
            whether gradients are enabled.
    """
    mode = torch.inference_mode() if gradients is None else torch.set_grad_enabled(gradients)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    exact = exact_float32() if device.type == "cuda" else contextlib.nullcontext()
    with mode, exact, autocast:
        yield


class Restorer:
    """Restoration of a module's parameters and buffers after steps at test time.

    Tensors that were not written to, as their version counters tell, are not copied.

    Args:
        module: module in the state to restore.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._tensors = _tensors_of(module)
        self._values = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}
        self._versions = {name: tensor._version for name, tensor in self._tensors.items()}
        self._trainable = {
            name: parameter.requires_grad for name, parameter in module.named_parameters()
        }

    def __call__(self) -> None:
        """Restore the state.

        Raises:
            FssbenchError: a parameter or buffer was added, removed or replaced by another tensor.
        """
        found = _tensors_of(self._module)
        for name in {**self._tensors, **found}:
            if found.get(name) is not self._tensors.get(name):
                raise FssbenchError(
                    f"{type(self._module).__name__}: {name} was added, removed or replaced at test "
                    "time; change its values in place, or use local variables"
                )
        with torch.no_grad():
            for name, tensor in found.items():
                if tensor._version != self._versions[name]:
                    tensor.copy_(self._values[name])
                    self._versions[name] = tensor._version
                tensor.grad = None
        for name, trainable in self._trainable.items():
            found[name].requires_grad_(trainable)
        self._module.eval()


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])
