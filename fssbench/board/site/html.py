"""Mark-up in which text cannot become mark-up."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any


class Html(str):
    """Text that is mark-up already; any other text is escaped where it goes in."""

    __slots__ = ()


# Elements that have no end.
_VOID = {"br", "input", "line", "circle", "rect", "path"}


def tag(name: str, *inside: str, **attributes: str | float | bool | None) -> Html:
    """An element.

    Args:
        name: of the element.
        inside: what it holds; whatever is no `Html` is escaped.
        attributes: ``class_`` is ``class`` and ``data_row`` is ``data-row``. True is an attribute
            without a value; None and False leave it out.
    """
    said = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{said}>" if name in ("br", "input") else f"<{name}{said}/>")
    return Html(f"<{name}{said}>{join(inside)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after another, each escaped unless it is `Html`."""
    return Html(between.join(p if isinstance(p, Html) else html.escape(p) for p in parts))


def script_json(value: Any) -> Html:
    """JSON that may stand in a ``<script>`` element: nothing in it can end the element."""
    # ASCII only, so that U+2028 and U+2029 are escapes too.
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")
