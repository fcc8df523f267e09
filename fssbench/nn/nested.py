"""Nested values of tensors: iterate over the tensors, join values to a batch, divide it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def separate(value: Any, count: int) -> list[Any]:
    """Divide a batch into values of one element each, the inverse of `together`.

    Args:
        value: a structure whose tensors are (N, …).
        count: N.

    Returns:
        N values of the same structure, their tensors (1, …) and views of the given ones.
    """
    if count == 1:
        return [value]
    return [map_tensors(value, functools.partial(_element, n)) for n in range(count)]


def _element(n: int, tensor: Tensor) -> Tensor:
    return tensor[n : n + 1]


def map_tensors(value: Any, function: Callable[[Any], Any], *, kind: type = Tensor) -> Any:
    """Return nested attrs classes, mappings, lists and tuples with each tensor replaced.

    Args:
        value: structure with tensors.
        function: function from a tensor to its replacement.
        kind: type of the values to replace, if they are no tensors.
    """

    def mapped(part: Any) -> Any:
        if isinstance(part, kind):
            return function(part)
        if attrs.has(type(part)):
            names = [field.name for field in attrs.fields(type(part))]
            return attrs.evolve(part, **{name: mapped(getattr(part, name)) for name in names})
        if isinstance(part, Mapping):
            return {key: mapped(each) for key, each in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(mapped(each) for each in part)
        return part

    return mapped(value)
