"""A counter of floating-point operations that counts attention on every device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import flop_counter as flops


def flop_counter() -> flops.FlopCounterMode:
    """Return a context manager that counts operations, two per multiply-add.

    Matrix products, convolutions and attention are counted; element-wise operations and custom
    kernels are not. torch's own table lacks the CPU's fused attention, so that a count would depend
    on the device and on the release of torch.
    """
    aten = torch.ops.aten
    return flops.FlopCounterMode(
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
