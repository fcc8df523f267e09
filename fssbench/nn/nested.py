"""Values with tensors in them, however deep: all of them, and several values as one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a value: in attrs classes, mappings, lists and tuples, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from tensors(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def together(values: Sequence[Any]) -> Any:
    """Values of one structure as one value, their tensors side by side along the first dimension.

    Args:
        values: B of them, whose tensors are (1, …) and of one shape; for B = 1 it is given back.

    Returns:
        The same structure, its tensors (B, …).

    Raises:
        TypeError: something else than tensors differs in a way that cannot be joined.
    """
    first = values[0]
    if len(values) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(values))
    if attrs.has(type(first)):
        names = [field.name for field in attrs.fields(type(first))]
        joined = {name: together([getattr(v, name) for v in values]) for name in names}
        return type(first)(**joined)
    if isinstance(first, Mapping):
        return {key: together([value[key] for value in values]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(together(parts) for parts in zip(*values, strict=True))
    if all(value == first for value in values[1:]):
        return first
    raise TypeError(f"values of type {type(first).__name__} differ and cannot be joined")
