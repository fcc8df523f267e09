"""A counter of floating-point operations that counts attention on every device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils import flop_counter as flops
from torch.utils._python_dispatch import TorchDispatchMode


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Count of the operations in torch's table of formulas, and of those reported to it.

    It counts what `torch.utils.flop_counter.FlopCounterMode` counts, in total instead of by module,
    except in control flow such as `torch.cond`, which is an error (NotImplementedError). That class
    would import torch's compiler, which takes two seconds.

    Args:
        formulas: functions that return the count of further operations.
    """

    def __init__(self, formulas: Mapping[Any, Callable[..., int]]) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.reported = self._counted = 0
        wrapped: Any = flops.shape_wrapper  # formulas get shapes instead of tensors
        own = {key: wrapped(formula) for key, formula in formulas.items()}
        self._formulas = {**flops.flop_registry, **own}

    def get_total_flops(self) -> int:
        """Return the number of counted operations."""
        return self._counted + self.reported

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.name().partition(".")[0] in _QUERIES:
            return NotImplemented
        formula = self._formulas.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if formula is not None:
            self._counted += int(formula(*args, **kwargs, out_val=result))
        return result

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, since torch would import its compiler to exclude this class from it."""
        return False


# Questions of nested and other special tensors about their own shape, as in torch's counter.
_QUERIES = {
    "prim::layout",
    *(
        f"aten::{name}"
        for name in (
            "sym_is_contiguous", "is_contiguous", "is_strides_like_format",
            "is_non_overlapping_and_dense", "size", "sym_size", "stride", "sym_stride",
            "storage_offset", "sym_storage_offset", "numel", "sym_numel", "dim",
        )
    ),
}  # fmt: skip

_active: list[FlopCounter] = []


def count_operations(number: int) -> None:
    """Report operations that torch's counter cannot see, e.g. those of a custom kernel."""
    for counter in _active:
        counter.reported += number


@contextlib.contextmanager
def flop_counter() -> Iterator[FlopCounter]:
    """Count operations, two per multiply-add, in a context.

    Matrix products, convolutions, attention and selective scans are counted; element-wise
    operations are not. torch's own table lacks the CPU's fused attention, so that a count would
    depend on the device and on the release of torch.
    """
    aten = torch.ops.aten
    counter = FlopCounter(
        {
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        }
    )
    _active.append(counter)
    try:
        with counter:
            yield counter
    finally:
        _active.remove(counter)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(flops.sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call, unused-ignore]


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    count = flops.sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call, unused-ignore]
    return int(count)
