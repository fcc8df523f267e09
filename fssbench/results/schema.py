"""JSON Schema (draft 2020-12) of what fssbench writes, made from the attrs classes themselves."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import attrs

from fssbench.errors import FssbenchError, near
from fssbench.results.record import DIGEST, SCHEMA, Record

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def record_schema() -> dict[str, Any]:
    """The schema of ``record.json``: fields, types and descriptions are those of `Record`.

    A field with a default may be missing, as `Record.read` allows; a field that `Record` does not
    have is refused. Raises TypeError for a field whose type JSON cannot hold.
    """
    parts: dict[str, Any] = {}
    whole = _object(Record, parts)
    whole["properties"]["schema"] |= {"const": SCHEMA}
    whole["required"].insert(0, "schema")
    # Not required: the first records had none.
    whole["properties"][DIGEST] = {
        "type": "string", "description": "sha256 of all other fields, by which damage is found.",
    }  # fmt: skip
    return {"$schema": DIALECT, "title": "fssbench record", **whole, "$defs": parts}


SCHEMAS = {"record": record_schema}


def schema_text(name: str) -> str:
    """The schema called `name`, as the text of its committed file ``docs/NAME.schema.json``.

    Raises:
        FssbenchError: there is none.
    """
    if name not in SCHEMAS:
        raise FssbenchError(
            f"no schema is called {name!r}; {near(name, SCHEMAS)}there are: {', '.join(SCHEMAS)}"
        )
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def _object(kind: type[Any], parts: dict[str, Any]) -> dict[str, Any]:
    """The schema of an attrs class; those of the classes inside of it are added to `parts`."""
    summary, told = _docstring(kind)
    hints = typing.get_type_hints(kind)
    fields = attrs.fields(kind)
    properties = {
        field.name: {**_value(hints[field.name], parts), **_described(told.get(field.name, ""))}
        for field in fields
    }
    return {
        **_described(summary),
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
        "additionalProperties": False,
    }


def _value(hint: Any, parts: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if attrs.has(hint):
        if hint.__name__ not in parts:
            parts[hint.__name__] = _object(hint, parts)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_value(argument, parts) for argument in arguments]}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _value(arguments[1], parts)}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _value(arguments[0], parts)}
    if origin is tuple:
        places = [_value(argument, parts) for argument in arguments]
        return {"type": "array", "prefixItems": places, "minItems": len(places), "items": False}
    raise TypeError(f"a field of type {hint} has no JSON Schema")


def _docstring(kind: type[Any]) -> tuple[str, dict[str, str]]:
    """First paragraph of a class's docstring, and what it says of each attribute."""
    summary, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
    told: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", f"\n{listed}"):
        names, _, text = entry.partition(": ")
        told |= {name.strip(): text for name in names.split(",")}
    return summary.partition("\n\n")[0], told


def _described(text: str) -> dict[str, str]:
    plain = re.sub(r"\bNone\b", "null", " ".join(text.replace("``", "`").split()))
    return {"description": plain} if plain else {}
