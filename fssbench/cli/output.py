"""Tables and JSON on standard output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from fssbench.errors import by_kind


def print_json(value: Any, **options: Any) -> None:
    """Print a value as indented JSON.

    Args:
        value: value to print.
        options: further arguments of `json.dumps`.
    """
    click.echo(json.dumps(value, indent=2, **options))


def report_problems(problems: Sequence[str]) -> int:
    """Print one line for each kind of problem that a check found, and return its exit code."""
    for line in by_kind(problems):
        click.echo(line, err=True)
    found = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    click.echo(found if problems else "fine", err=bool(problems))
    return 1 if problems else 0


def plain_console() -> Any:
    """Return a console that prints text as it is, without markup, emoji, colours or wrapping."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True)


def make_table(*columns: str, text: int = 1, frame: bool = True, title: str | None = None) -> Any:
    """Return an empty table.

    Args:
        columns: headings.
        text: number of text columns, which come first; the others hold numbers.
        frame: draw a frame; without, more text fits into 80 columns.
        title: title of the table.
    """
    from rich import box
    from rich.table import Table

    frameless = {"box": box.SIMPLE, "pad_edge": False, "title_justify": "left"}
    table = Table(title=title, **({} if frame else frameless))  # type: ignore[arg-type]
    for name in columns[:text]:
        table.add_column(name, overflow="fold")
    for name in columns[text:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_table(table: Any, width: int = 0) -> None:
    """Print a table, at least `width` columns wide: a narrow terminal must not truncate numbers."""
    from rich.console import Console

    console = Console(markup=False, emoji=False)
    console.width = max(console.width, width)
    console.print(table)
