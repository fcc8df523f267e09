"""Option ``--config``: options of one command, read from a TOML file."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import click

from fssbench import registry
from fssbench.cli.options import PATH, names, numbers, pairs, weights_of_parts
from fssbench.errors import FssbenchError, near
from fssbench.files import read_toml

_OWN = ("config", "plugin", "help")


def _read(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the values of a file the defaults of the command, after a check of each."""
    if path is None or ctx.resilient_parsing:
        return
    content = read_toml(path, f"--config {path}")
    plugins = content.pop("plugin", [])
    known = _parameters(ctx.command)
    defaults: dict[str, Any] = {}
    for key, value in content.items():
        where = f"--config {path}: {key}"
        named = key.replace("_", "-")
        if named not in known:
            raise FssbenchError(
                f"{where}: no option of {ctx.command.name}; {near(named, known)}"
                f"options: {', '.join(known)}"
            )
        option = known[named]
        if option.name in defaults:
            raise FssbenchError(f"{where}: given twice")
        defaults[str(option.name)] = given = _from_toml(option, value, where)
        try:
            converted = option.type_cast_value(ctx, given)
            if option.callback is not None:
                option.callback(ctx, option, converted)
        except click.UsageError as error:
            raise FssbenchError(f"--config {path}: {error.format_message()}") from error
        except FssbenchError as error:
            raise FssbenchError(f"--config {path}: {error}") from error
    ctx.default_map = defaults
    _load_plugins(plugins, f"--config {path}: plugin")


def _parameters(command: click.Command) -> dict[str, click.Parameter]:
    """Return arguments by name and options by their long name without dashes."""
    found: dict[str, click.Parameter] = {}
    for parameter in command.params:
        for name in parameter.opts:
            named = name.removeprefix("--").replace("_", "-")
            if parameter.name not in _OWN and not named.startswith("-"):
                found[named] = parameter
    return found


def _from_toml(parameter: click.Parameter, value: Any, where: str) -> Any:
    """Return a value in the form of the command line: text, list of texts, or a flag."""
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not isinstance(value, bool):
            raise FssbenchError(f"{where}: write true or false")
        return value
    if isinstance(value, dict):
        if parameter.callback not in (pairs, weights_of_parts):
            raise FssbenchError(f"{where}: takes no table")
        return [f"{key}={_text(each, f'{where}.{key}', many=True)}" for key, each in value.items()]
    if getattr(parameter, "multiple", False):
        return [_text(each, where) for each in (value if isinstance(value, list) else [value])]
    return _text(value, where, many=parameter.callback in (names, numbers))


def _text(value: Any, where: str, *, many: bool = False) -> str:
    if isinstance(value, list) and many:
        return ",".join(_text(each, where) for each in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict, datetime.date, datetime.time)):
        raise FssbenchError(f"{where}: write a text or a number")
    return str(value)


def _load_plugins(names: Any, where: str) -> None:
    """Load plugins in addition to those of ``-p``."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FssbenchError(f"{where}: write a list of modules or .py files")
    if names:
        loaded = [i.name for i in registry.registry().plugins.infos if i.source == "-p"]
        registry.use_plugins([*loaded, *names])


config_option = click.option(
    "--config", type=PATH, is_eager=True, expose_value=False, callback=_read, metavar="FILE.toml",
    help="Options of this command by their long names; the command line overrides them.",
)  # fmt: skip
