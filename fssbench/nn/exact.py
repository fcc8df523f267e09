"""Exact float32 products on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Compute products of float32 numbers with all 24 bits of their mantissas.

    By default torch lets cuDNN round the inputs of float32 convolutions to the 11 bits of TF32, so
    predictions would differ between CPU and GPU, and between GPUs. Other precisions are not
    changed. cuDNN does not choose algorithms by their speed, which would depend on the batch size.
    The previous settings are restored on exit.
    """
    settings = _settings()
    before = [getattr(holder, name) for holder, name, _ in settings]
    for holder, name, value in settings:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for (holder, name, _), value in zip(settings, before, strict=True):
            setattr(holder, name, value)


def _settings() -> list[tuple[Any, str, Any]]:
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    fixed = (cudnn, "benchmark", False)
    # torch 2.9 renamed the switches and raises an error if both kinds are used.
    if hasattr(cudnn, "conv"):
        holders = (cudnn.conv, cudnn.rnn, products)
        return [fixed, *((each, "fp32_precision", "ieee") for each in holders)]
    return [fixed, (cudnn, "allow_tf32", False), (products, "allow_tf32", False)]
