"""Tables that benchmarks fill and the end of the run prints."""

from __future__ import annotations

from collections import defaultdict

TABLES: dict[str, list[dict[str, object]]] = defaultdict(list)


def text_of(title: str, rows: list[dict[str, object]]) -> str:
    """A markdown table under its title."""
    names = list(rows[0])
    lines = [
        f"## {title}",
        "",
        "| " + " | ".join(names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(str(row[name]) for name in names) + " |" for row in rows),
        "",
    ]
    return "\n".join(lines)
