"""Strict structuring of JSON values as attrs objects, without type conversion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_origin

import cattrs

T = TypeVar("T")


def structure(value: Any, kind: type[T]) -> T:
    """Return an attrs object made of JSON values.

    By default cattrs converts ``"1"``, ``1.9`` and ``true`` to 1, and ``"ab"`` to ``("a", "b")``,
    which would hide errors in a file.

    Args:
        value: output of a JSON parser.
        kind: attrs class.

    Raises:
        cattrs.BaseValidationError: a field is missing or of another type, or a number is not
            finite.
    """
    return _CONVERTER.structure(value, kind)


def reasons(error: Exception) -> str:
    """Return the errors of a failed `structure` call on one line."""
    return " ".join("; ".join(cattrs.transform_error(error)).split())


def _only(*kinds: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, wanted: Any) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"{type(value).__name__} instead of {wanted.__name__}")
        made = wanted(value)
        if wanted is float and not math.isfinite(made):
            raise ValueError("a number that is not finite")
        return made

    return hook


def _tuple(value: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(f"{type(value).__name__} instead of a list")
    items = get_args(kind)
    if items[-1] == ...:
        return tuple(_CONVERTER.structure(value, list[items[0]]))  # type: ignore[valid-type]
    if len(items) != len(value):
        raise ValueError(f"{len(value)} items instead of {len(items)}")
    return tuple(_CONVERTER.structure(v, item) for v, item in zip(value, items, strict=True))


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


_CONVERTER = cattrs.Converter()
_CONVERTER.register_structure_hook(int, _only(int))
_CONVERTER.register_structure_hook(bool, _only(bool))
_CONVERTER.register_structure_hook(str, _only(str))
_CONVERTER.register_structure_hook(float, _only(float, int))
_CONVERTER.register_structure_hook_func(_is_tuple, _tuple)
