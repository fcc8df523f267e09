"""Numbers and untrusted texts as short text, equal on all kinds of boards."""

from __future__ import annotations

import re

LONGEST = 80
NONE = "—"


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return an untrusted text as one line of printable characters, cut but not escaped."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of plain text, which empty lines separate, each as one line."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return [" ".join(map(one_line, block.split())) for block in blocks if block]


def score(value: float | None) -> str:
    """Return a percentage with a decimal."""
    return NONE if value is None else f"{value:.1f}"


def count(number: float | None) -> str:
    """Return a number of parameters, in thousands or millions."""
    if number is None:
        return NONE
    for unit, size in (("M", 1e6), ("k", 1e3)):
        # 999 950 and more would print as 1000.0 k.
        if number >= 0.99995 * size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f}"


def milliseconds(seconds: float | None) -> str:
    """Return seconds in milliseconds; small values with a decimal."""
    if seconds is None:
        return NONE
    value = 1000.0 * seconds
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
