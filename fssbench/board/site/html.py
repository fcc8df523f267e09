"""HTML elements with escaped text."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any


class Html(str):
    """Markup; any other text is escaped when it is inserted."""

    __slots__ = ()


# Elements without content.
_VOID = {"line", "circle"}


def tag(name: str, *inside: str, **attributes: str | float | bool | None) -> Html:
    """Return an element.

    Args:
        name: name of the element.
        inside: content; text other than `Html` is escaped.
        attributes: attributes, with ``class_`` for ``class`` and ``data_row`` for ``data-row``.
            True is an attribute without a value; None and False leave it out.
    """
    start = name
    for key, value in attributes.items():
        if value is not None and value is not False:
            attribute = key.rstrip("_").replace("_", "-")
            text = "" if value is True else f'="{html.escape(str(value))}"'
            start += f" {attribute}{text}"
    if name in _VOID:
        return Html(f"<{start}/>")
    return Html(f"<{start}>{join(inside)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """Return parts one after another, each escaped unless it is `Html`."""
    return Html(between.join(p if isinstance(p, Html) else html.escape(p) for p in parts))


def script_json(value: Any) -> Html:
    """Return JSON for a ``<script>`` element, which no text in it can end."""
    # ASCII only, so that U+2028 and U+2029 are escapes too.
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)
