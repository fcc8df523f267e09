"""JSON Schema (draft 2020-12) of records, made from their attrs classes."""

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
    """Return the schema of ``record.json``, with the fields, types and descriptions of `Record`.

    A field with a default may be missing, as in `Record.read`; unknown fields are refused.

    Raises:
        TypeError: a field has a type that has no equivalent in JSON.
    """
    parts: dict[str, Any] = {}
    whole = _object(Record, parts)
    whole["properties"]["schema"] |= {"const": SCHEMA}
    whole["required"].insert(0, "schema")
    # Not required, because the first records have none.
    whole["properties"][DIGEST] = {
        "type": "string", "description": "SHA-256 of all other fields, to detect damage.",
    }  # fmt: skip
    return {"$schema": DIALECT, "title": "fssbench record", **whole, "$defs": parts}


SCHEMAS = {"record": record_schema}


def schema_text(name: str) -> str:
    """Return a schema as the text of the committed file ``docs/NAME.schema.json``.

    Raises:
        FssbenchError: the name is unknown.
    """
    if name not in SCHEMAS:
        known = f"{near(name, SCHEMAS)}there are: {', '.join(SCHEMAS)}"
        raise FssbenchError(f"no schema is called {name!r}; {known}")
    return json.dumps(SCHEMAS[name](), indent=2, ensure_ascii=False) + "\n"


def _object(kind: type[Any], parts: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an attrs class, and add those of nested classes to `parts`."""
    summary, documented = _docstring(kind)
    hints = typing.get_type_hints(kind)
    properties = {
        name: {**_value(hint, parts), **_described(documented.get(name, ""))}
        for name, hint in hints.items()
    }
    return {
        **_described(summary),
        "type": "object",
        "properties": properties,
        "required": [field.name for field in attrs.fields(kind) if field.default is attrs.NOTHING],
        "additionalProperties": False,
    }


def _value(hint: Any, parts: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if attrs.has(hint):
        parts[hint.__name__] = _object(hint, parts)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_value(argument, parts) for argument in arguments]}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _value(arguments[1], parts)}
    if origin is tuple and arguments[-1] is Ellipsis:
        return {"type": "array", "items": _value(arguments[0], parts)}
    if origin is tuple:
        items = [_value(argument, parts) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
    raise TypeError(f"a field of type {hint} has no JSON Schema")


def _docstring(kind: type[Any]) -> tuple[str, dict[str, str]]:
    """Return the first paragraph of a class's docstring, and the texts of its attributes."""
    summary, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes:\n")
    entries = (entry.partition(": ") for entry in re.split(r"\n(?=    \w)", f"\n{listed}"))
    texts = {name.strip(): text for names, _, text in entries for name in names.split(",")}
    return summary.partition("\n\n")[0], texts


def _described(text: str) -> dict[str, str]:
    plain = re.sub(r"\bNone\b", "null", " ".join(text.replace("``", "`").split()))
    return {"description": plain} if plain else {}
