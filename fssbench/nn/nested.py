"""Nested values of tensors: iterate over the tensors, or join values into a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """Yield all tensors in nested attrs classes, mappings, lists and tuples."""
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
    """Join values of one structure, concatenating tensors along the first dimension.

    Args:
        values: B values with tensors (1, …) of one shape; a single value is returned as is.

    Returns:
        The same structure, its tensors (B, …).

    Raises:
        TypeError: values other than tensors differ and cannot be joined.
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
