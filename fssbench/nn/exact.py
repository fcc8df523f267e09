"""What float32 means on a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Products of float32 numbers keep all 24 bits of their mantissas.

    By default torch lets cuDNN round the inputs of float32 convolutions to the 11 bits of TF32, so
    a GPU's predictions would differ from a CPU's, and one GPU's from another's, under one name.
    Other precisions are left alone. The settings from before come back.
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
    # torch 2.9 has new names for the switches, and does not want the two kinds mixed.
    if hasattr(cudnn, "conv"):
        return [(each, "fp32_precision", "ieee") for each in (cudnn.conv, cudnn.rnn, products)]
    return [(cudnn, "allow_tf32", False), (products, "allow_tf32", False)]
