"""Options shared by several commands, and the parsing of their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """``0,1`` to (0, 1); nothing, and ``all`` of ``--fold``, to None."""
    name = parameter.opts[-1]
    if value is None or (value == "all" and name == "--fold"):
        return None
    try:
        found = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        example = "1,5" if name == "--shots" else "0,1"
        hint = " or all" if name == "--fold" else ""
        raise click.UsageError(
            f"{name} {value}: give whole numbers with commas, e.g. {name} {example}{hint}", ctx
        ) from error
    return found


def names(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """``a,b`` to (a, b)."""
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """``4G`` to bytes."""
    from fssbench.runtime.memory import parse_size

    return None if value is None else parse_size(value, parameter.opts[-1])


def pairs(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """``key=value`` texts to a dictionary."""
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{parameter.opts[0]} {text}: write key=value", ctx)
        found[key] = value
    return found


def weights_of_parts(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """``W`` and ``part=W`` texts to a dictionary; the backbone's name is ""."""
    found: dict[str, str] = {}
    for text in values:
        part, equals, value = text.partition("=")
        if not equals or not part.isidentifier() or Path(text).exists():
            part, value = "", text
        if part in found:
            raise click.UsageError(f"{parameter.opts[0]} {text}: given twice", ctx)
        found[part] = value
    return found


def plugin_option(command: F) -> F:
    """Show ``-p`` in a verb's help. It is taken out of the arguments before verbs see them."""
    return click.option(
        "-p", "--plugin", multiple=True, expose_value=False, metavar="PLUGIN",
        help="Load a plugin: a module, or a .py file.",
    )(command)  # fmt: skip


def data_options(command: F) -> F:
    """``--data-root`` and ``-d``."""
    command = click.option(
        "-d", "--data-option", "data_options", multiple=True, callback=pairs, metavar="KEY=VALUE",
        help="Option of the dataset; fssbench show dataset NAME lists them.",
    )(command)  # fmt: skip
    return click.option(
        "--data-root", type=click.Path(path_type=Path), help="Folder of the dataset."
    )(command)


def cell_options(command: F) -> F:
    """``--lists``, ``--fold``, ``--shots``, ``--seed``, ``--limit``."""
    for option in (
        click.option("--limit", type=int, help="Only the first N episodes; such rows never rank."),
        click.option("--seed", "seeds", default="0", show_default=True, callback=numbers,
                     help="Seeds of the manifests."),
        click.option("--shots", default="1", show_default=True, callback=numbers,
                     help="Numbers of supports, e.g. 1,5."),
        click.option("--fold", "folds", default="all", show_default=True, callback=numbers,
                     help="Folds, e.g. 0,1, or all."),
        lists_option,
    ):  # fmt: skip
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

lists_option = click.option(
    "--lists", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Authors' list files, for a protocol of the literature.",
)  # fmt: skip
