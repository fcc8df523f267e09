"""The selective scan of state space models, with Mamba's kernel or in torch operations."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fssbench.nn.flops import count_operations
from fssbench.nn.torch_scan import torch_scan


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,  # noqa: N803
    B: Tensor,  # noqa: N803
    C: Tensor,  # noqa: N803
    D: Tensor | None = None,  # noqa: N803
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Compute a linear recurrence with input-dependent coefficients (Gu and Dao, "Mamba", 2023).

    For each of b samples and d channels, with n states that are zero at first (algorithm 2)::

        h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t        y_t = C_t · h_t + D u_t

    The semantics are those of ``mamba_ssm.ops.selective_scan_interface.selective_scan_fn``. That
    kernel is used when mamba-ssm has one and the tensors are on a GPU; see `scan_in_use`.
    Otherwise a parallel prefix scan takes log2(L) steps of vectorised torch operations. It
    multiplies decays and never divides by them, so long sequences and strong decays (delta A far
    below 0) are safe. Its backward pass recomputes the states from the saved arguments. Second
    derivatives are not implemented.

    Args:
        u: input, (b, d, L).
        delta: step sizes, (b, d, L).
        A: state matrix, (d, n), below 0 in a stable model.
        B: input matrices, (b, g, n, L), one for each of g groups of d / g consecutive channels.
        C: output matrices, of the same shape.
        D: skip connection, (d,), or None for 0.
        delta_bias: bias of `delta`, (d,), or None for 0.
        delta_softplus: softplus of `delta` (after the bias).

    Returns:
        (b, d, L), in the type of `u`. It is computed in float32 at least, under autocast too.

    Raises:
        ValueError: the shapes are not consistent.
    """
    arguments = (u, delta, A, B, C, D, delta_bias)
    _check(*arguments)
    # As in VMamba's code: 9 for each state, and 1 for the skip connection.
    count_operations(u.numel() * (9 * A.shape[1] + (D is not None)))
    kernel = _kernel()[0] if u.is_cuda else None
    if kernel and torch.float64 not in (u.dtype, delta.dtype):
        return _by_kernel(kernel, *arguments, delta_softplus)
    return torch_scan(*arguments, delta_softplus)


def scan_in_use() -> str:
    """Return one line that names the implementation of `selective_scan` in use, and why."""
    kernel, reason = _kernel()
    if kernel is None:
        return f"selective scan: torch ({reason})"
    if not torch.cuda.is_available():
        return f"selective scan: torch ({reason}, but there is no GPU for its kernel)"
    return f"selective scan: the kernel of {reason} on the GPU, torch on the CPU"


def _check(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor | None, bias: Tensor | None
) -> None:
    if u.ndim != 3 or delta.shape != u.shape:
        raise ValueError(f"u {tuple(u.shape)} and delta {tuple(delta.shape)} must be (b, d, L)")
    batch, channels, length = u.shape
    if a.ndim != 2 or len(a) != channels:
        raise ValueError(f"A {tuple(a.shape)} must be (d, n) with d = {channels}")
    wanted = f"(b, g, n, L) = ({batch}, a divisor of {channels}, {a.shape[1]}, {length})"
    for name, tensor in (("B", b), ("C", c)):
        fits = tensor.ndim == 4 and tensor.shape[1] > 0 and channels % tensor.shape[1] == 0
        if not fits or tensor.shape != (batch, b.shape[1], a.shape[1], length):
            raise ValueError(f"{name} {tuple(tensor.shape)} must be {wanted}, the same for B and C")
    for name, vector in (("D", d), ("delta_bias", bias)):
        if vector is not None and vector.shape != (channels,):
            raise ValueError(f"{name} {tuple(vector.shape)} must be ({channels},)")


@functools.cache
def _kernel() -> tuple[Callable[..., Any] | None, str]:
    """Return Mamba's function and its version, or None and the reason."""
    try:
        version = importlib.metadata.version("mamba-ssm")
    except importlib.metadata.PackageNotFoundError:
        return None, "mamba-ssm is not installed"
    try:
        module = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    except Exception as error:  # an extension built for another torch fails in many ways
        return None, f"mamba-ssm {version} cannot be imported: {' '.join(str(error).split())}"
    # Released versions fail to import without the extension, the development version sets None.
    if getattr(module, "selective_scan_cuda", None) is None:
        return None, f"mamba-ssm {version} was installed without its kernel"
    return module.selective_scan_fn, f"mamba-ssm {version}"


def _by_kernel(
    kernel: Callable[..., Tensor], u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor,
    d: Tensor | None, bias: Tensor | None, softplus: bool,
) -> Tensor:  # fmt: skip
    # The kernel needs one type for time-dependent arguments, and float32 for the others.
    kind = u.dtype if u.dtype == delta.dtype == b.dtype == c.dtype else torch.float32
    d, bias = (None if tensor is None else tensor.float() for tensor in (d, bias))
    scanned = kernel(
        u.to(kind), delta.to(kind), a.float(), b.to(kind), c.to(kind), d,
        delta_bias=bias, delta_softplus=softplus,
    )  # fmt: skip
    return scanned.to(u.dtype)
