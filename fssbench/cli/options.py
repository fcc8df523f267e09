"""Options shared by several commands, and parsers of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from fssbench.cli.completion import names_of
from fssbench.hub import file_or_address

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Convert ``0,1`` to (0, 1), and no value or ``all`` of ``--fold`` to None."""
    name = parameter.opts[-1]
    if value is None or (value == "all" and name == "--fold"):
        return None
    try:
        return tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        example = {"--shots": "1,5", "--fold": "0,1 or all"}.get(name, "0,1")
        problem = f"give whole numbers with commas, e.g. {name} {example}"
        raise click.UsageError(f"{name} {value}: {problem}", ctx) from error


def names(ctx: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """Convert ``a,b`` to (a, b)."""
    return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))


def size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Convert ``4G`` to bytes."""
    if value is None or ctx.resilient_parsing:  # completion must not import torch
        return None
    from fssbench.runtime.memory import parse_size

    return parse_size(value, parameter.opts[-1])


def pairs(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Convert ``key=value`` texts of different keys to a dictionary."""

    def split(text: str) -> tuple[str, str]:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{parameter.opts[0]} {text}: write key=value", ctx)
        return key, value

    return _by_key(ctx, parameter, values, split, "{} is given twice")


def weights_of_parts(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Convert ``W`` and ``part=W`` texts to a dictionary, with "" for the backbone."""

    def split(text: str) -> tuple[str, str]:
        part, equals, value = text.partition("=")
        is_part = equals and part.isidentifier() and not Path(text).exists()
        return (part, value) if is_part else ("", text)

    return _by_key(ctx, parameter, values, split, "given twice")


def _by_key(
    ctx: click.Context,
    parameter: click.Parameter,
    values: Sequence[str],
    split: Callable[[str], tuple[str, str]],
    twice: str,
) -> dict[str, str]:
    """Return values by key: those of ``--config``, complemented by those of the command line.

    Args:
        ctx: context of the command.
        parameter: its parameter.
        values: values of the command line.
        split: function from a text to key and value.
        twice: message about a key (``{}``) that is given twice in either place.
    """
    found: dict[str, str] = {}
    for group in (ctx.lookup_default(str(parameter.name)) or (), values):
        given: dict[str, str] = {}
        for text in group:
            key, value = split(text)
            if key in given:
                message = twice.format(key)
                raise click.UsageError(f"{parameter.opts[0]} {text}: {message}", ctx)
            given[key] = value
        found |= given
    return found


def grouped(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return a decorator that adds several options to a command."""

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def option_of(what: str) -> Callable[[F], F]:
    """Return the option ``-o KEY=VALUE``.

    Args:
        what: object that the options configure, for the help text.
    """
    return click.option("-o", "--option", "options", multiple=True, callback=pairs,
                        metavar="KEY=VALUE", help=f"Option of {what}.")  # fmt: skip


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

matcher_option = option_of("the matcher; fssbench show matcher NAME lists them")

lists_option = click.option(
    "--lists", type=PATH, metavar="FOLDER", help="Authors' list files, if the protocol reads them."
)

device_option = click.option(
    "--device", default="auto", show_default=True, help="Device: auto, cpu or cuda."
)

workers_option = click.option(
    "--workers", type=int, help="Loader processes  [default: one less than the CPU cores]."
)

data_options = grouped(
    click.option("--data-root", type=PATH, help="Folder of the dataset."),
    click.option("-d", "--data-option", "data_options", multiple=True, callback=pairs,
                 metavar="KEY=VALUE",
                 help="Option of the dataset; fssbench show dataset NAME lists them."),
)  # fmt: skip

cell_options = grouped(
    lists_option,
    click.option("--fold", "folds", default="all", show_default=True, callback=numbers,
                 help="Folds, e.g. 0,1, or all."),
    click.option("--shots", default="1", show_default=True, callback=numbers,
                 help="Numbers of supports, e.g. 1,5."),
    click.option("--seed", "seeds", default="0", show_default=True, callback=numbers,
                 help="Seeds of the manifests."),
    click.option("--limit", type=int, help="Only the first N episodes; such rows never rank."),
)  # fmt: skip

method_options = grouped(
    click.option("--backbone", default="", shell_complete=names_of("backbone"),
                 help="Frozen encoder  [default: the checkpoint's, or the matcher's]."),
    click.option("--encoder", "encoders", multiple=True, callback=pairs, metavar="ROLE=NAME",
                 shell_complete=names_of("backbone"),
                 help="Encoder of a matcher on whole images  [default: the matcher's]."),
    click.option("--weights", multiple=True, callback=weights_of_parts, metavar="[ROLE=]W",
                 help="Weights of the backbone, of all encoders or of one: pretrained, random, or "
                 "a file  [default: pretrained]."),
    click.option("--checkpoint", type=file_or_address, metavar="FILE|hf://…",
                 help="Trained matcher, with its name, options, backbone and fold."),
    matcher_option,
)  # fmt: skip

cache_options = grouped(
    click.option("--cache-dir", type=PATH,
                 help="Folder for features on disk, shared with other runs."),
    click.option("--cache-limit", callback=size, default="50G", show_default=True, metavar="SIZE",
                 help="Size limit of --cache-dir."),
)  # fmt: skip

process_options = grouped(
    device_option,
    click.option("--devices", type=int, default=1, show_default=True,
                 help="Number of processes, each on its own device; not with torchrun or srun."),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32",
                 show_default=True, help="Floating-point precision."),
    workers_option,
)  # fmt: skip

rerun_options = grouped(
    click.option("--checkpoint", type=file_or_address, metavar="FILE|hf://…",
                 help="The trained matcher, if the record has one."),
    click.option("--weights", multiple=True, callback=weights_of_parts, metavar="[ROLE=]W",
                 help="Weights of the backbone, or of an encoder, if they are a file."),
    data_options,
    lists_option,
    device_option,
    workers_option,
)  # fmt: skip
