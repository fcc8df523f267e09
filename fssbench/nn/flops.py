"""A counter of floating-point operations that counts attention on every device."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch.utils import flop_counter as flops


class FlopCounter(flops.FlopCounterMode):
    """torch's counter, with the operations that `count_operations` reports."""

    reported = 0

    def get_total_flops(self) -> int:
        """Return the number of counted operations."""
        return int(super().get_total_flops()) + self.reported

    def __enter__(self) -> Self:
        _active.append(self)
        super().__enter__()  # type: ignore[no-untyped-call, unused-ignore]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call, unused-ignore]
        _active.remove(self)


_active: list[FlopCounter] = []


def count_operations(number: int) -> None:
    """Report operations that torch's counter cannot see, e.g. those of a custom kernel."""
    for counter in _active:
        counter.reported += number


def flop_counter() -> FlopCounter:
    """Return a context manager that counts operations, two per multiply-add.

    Matrix products, convolutions, attention and selective scans are counted; element-wise
    operations are not. torch's own table lacks the CPU's fused attention, so that a count would
    depend on the device and on the release of torch.
    """
    aten = torch.ops.aten
    return FlopCounter(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(flops.sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call, unused-ignore]


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    count = flops.sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call, unused-ignore]
    return int(count)
