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
        yield from tensors(attrs.astuple(value, recurse=False))
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))
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
        return type(first)(**together([attrs.asdict(value, recurse=False) for value in values]))
    if isinstance(first, Mapping):
        return {key: together([value[key] for value in values]) for key in first}
    if isinstance(first, list | tuple):
        return type(first)(together(parts) for parts in zip(*values, strict=True))
    if all(value == first for value in values[1:]):
        return first
    raise TypeError(f"values of type {type(first).__name__} differ and cannot be joined")
