"""Devices, precisions and loader processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from fssbench.errors import FssbenchError

Precision = Literal["fp32", "bf16"]

log = logging.getLogger(__name__)


def choose_device(name: str, precision: Precision = "fp32") -> torch.device:
    """Return the device of a name: ``auto`` (a GPU if available), ``cpu``, ``cuda`` or ``cuda:1``.

    ``mps`` and ``xpu`` are accepted where torch supports them; fssbench was not run on them.

    Args:
        name: name of the device.
        precision: precision of the run; a warning is logged for bf16 on a CPU that emulates it.

    Raises:
        FssbenchError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise FssbenchError(f"--device {name}: use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda", "mps", "xpu"):
        raise FssbenchError(f"--device {name}: use auto, cpu or cuda")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise FssbenchError(
            f"--device {name}: this machine has no such GPU that torch can use"
        ) from error
    _read_constants_of_log1p()
    if device.type != "cpu":
        return device
    if precision == "bf16" and emulates_bf16():
        log.warning(
            "--precision bf16: this CPU has no fast instructions for bf16, which takes many times "
            "as long as fp32 on it; use --precision fp32, or a GPU"
        )
    return torch.device("cpu")


def emulates_bf16() -> bool:
    """Return whether torch computes matrix products in bfloat16 without its CPU library.

    oneDNN needs AVX-512 for them. On a CPU with AVX2 alone, torch 2.14 multiplied two matrices of
    2,048 x 2,048 at 0.35 GFLOP/s in bfloat16 and at 53 in float32 (one thread).
    """
    if not torch._C._has_mkldnn:
        return False  # another library, of which torch reports nothing
    return not bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _read_constants_of_log1p() -> None:
    """Let the CPU read the constants of special cases in log1p, which softplus and losses use.

    torch's AVX-512 code loads them under a mask that is usually empty. While their page of the
    library was never read, AMD CPUs handle each of these loads in microcode: log1p, softplus and
    binary cross-entropy take 4 to 6 times as long, until any value needs the constant.
    """
    torch.log1p(torch.tensor([-0.0]))


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one device on the CPU, copied at once: a GPU is waited for only once."""
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    flat = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors]).cpu()
    parts = torch.split(flat, [tensor.nbytes for tensor in tensors])
    return [
        part.clone().view(tensor.dtype).view(tensor.shape)  # a part may begin at any byte
        for part, tensor in zip(parts, tensors, strict=True)
    ]


def loader_processes(workers: int | None, devices: int) -> int:
    """Return the number of loader processes of each of a machine's processes.

    Args:
        workers: number that the user gave; None for one less than the share of the machine's cores,
            at most 8.
        devices: number of processes.
    """
    return max(0, min(8, (os.cpu_count() or 1) // devices - 1)) if workers is None else workers
