"""Conversion of options from text or TOML to the config object of a spec."""

from __future__ import annotations

import contextlib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import attrs
import cattrs

from fssbench.errors import FssbenchError, near
from fssbench.specs import Spec, resolve

EARLIER = "earlier"
"""Key of a field's metadata: value of the option in records and checkpoints that lack it, because
they were written before the option existed."""


class NotFiniteError(ValueError):
    """A number that is NaN or infinite, which JSON, and so a record, cannot hold."""


def options_class(spec: Spec) -> type[Any] | None:
    """Return the attrs class of a spec's options, or None if it has no options."""
    return typing.cast(type[Any], resolve(spec.config, spec.name)) if spec.config else None


def configure(spec: Spec, options: Mapping[str, Any]) -> Any:
    """Return the config object of a spec from options, whose values may be text.

    Raises:
        FssbenchError: an option is unknown or its value has the wrong type.
    """
    config_class = options_class(spec)
    if config_class is None:
        if options:
            raise FssbenchError(f"{spec.name} takes no options, but was given {', '.join(options)}")
        return None
    fields = attrs.fields_dict(config_class)
    hints = typing.get_type_hints(config_class)
    values = {}
    for key, value in options.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise FssbenchError(
                f"{spec.name} has no option {key!r}; {near(name, fields)}"
                f"its options: {', '.join(fields) or 'none'}"
            )
        try:
            values[name] = structure(value, hints[name])
        except NotFiniteError as error:
            raise FssbenchError(
                f"option {key}={value} of {spec.name}: give a finite number"
            ) from error
        except Exception as error:
            raise FssbenchError(
                f"option {key}={value} of {spec.name}: expected {spell(hints[name])}"
            ) from error
    try:
        return config_class(**values)
    except (TypeError, ValueError) as error:
        raise FssbenchError(f"options of {spec.name}: {error.args[0]}") from error


def to_record(config: Any) -> dict[str, Any]:
    """Return options as JSON values, without those that have their `EARLIER` value.

    So a method that computes the same as before an option was added has the same identity.
    """
    if config is None:
        return {}
    values: dict[str, Any] = cattrs.unstructure(config)
    fields = attrs.fields_dict(type(config))
    return {
        name: value
        for name, value in values.items()
        if EARLIER not in fields[name].metadata or fields[name].metadata[EARLIER] != value
    }


def from_record(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a record or checkpoint, with the `EARLIER` values of absent ones."""
    config_class = options_class(spec)
    fields = attrs.fields(config_class) if config_class else ()
    earlier = {f.name: f.metadata[EARLIER] for f in fields if EARLIER in f.metadata}
    return {**earlier, **values}


def structure(value: Any, hint: Any) -> Any:
    """Convert a value, possibly text, to the type `hint`.

    Raises:
        NotFiniteError: it is NaN or infinite, or has such a number.
        ValueError, cattrs errors: it cannot be converted.
    """
    made = _structure(value, hint)
    _check_finite(made)
    return made


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise NotFiniteError(value)
    if isinstance(value, Mapping):
        _check_finite(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            _check_finite(each)


def _structure(value: Any, hint: Any) -> Any:
    if isinstance(value, str):
        return _from_text(value, hint)
    if hint is float and type(value) is int:
        return float(value)
    if hint in (int, float, bool, str) and type(value) is not hint:
        raise ValueError(value)
    return cattrs.structure(value, hint)


def _from_text(text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", ""):
            return None
        for each in arguments:
            with contextlib.suppress(Exception):
                return _from_text(text, each)
        raise ValueError(text)
    if origin is typing.Literal:
        return {str(choice): choice for choice in arguments}[text]
    if origin is tuple:
        parts = [part.strip() for part in text.split(",")] if text else []
        if arguments[-1] is Ellipsis:
            return tuple(_from_text(part, arguments[0]) for part in parts)
        return tuple(_from_text(part, a) for part, a in zip(parts, arguments, strict=True))
    if hint is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
            text.lower()
        ]
    return cattrs.structure(text, hint)


def spell(hint: Any) -> str:
    """Return a type as text for people: ``float``, ``tuple[int, ...]``, ``one of a, b``."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
