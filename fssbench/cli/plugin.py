"""``fssbench plugin``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.completion import names_of, plugins
from fssbench.cli.options import PATH, data_options, json_option, option_of, pairs
from fssbench.cli.output import make_table, print_json, print_table

if TYPE_CHECKING:
    from fssbench.testing.plugin import Checked

_STYLES = {"passed": "green", "failed": "bold red", "skipped": "yellow"}


@click.group()
def plugin() -> None:
    """Create and check plugins."""


@plugin.command()
@click.argument("name")
@click.option("--to", type=PATH, help="Folder to write, new or empty  [default: fssbench-NAME].")
@click.option("--image", is_flag=True,
              help="A matcher on whole images, with encoders by role.")  # fmt: skip
def new(name: str, to: Path | None, image: bool) -> None:
    """Write a runnable package with a matcher called NAME."""
    import os
    import shlex

    from fssbench.scaffold.package import new_package

    written = new_package(name, to, image=image)
    for path in written:
        click.echo(path)
    init = next(path for path in written if path.name == "__init__.py")
    folder = Path(os.path.commonpath(written))
    click.echo(
        f"\nTry it:      fssbench evaluate {name} -p {shlex.quote(str(init))} --limit 20\n"
        f"Install it:  pip install -e {shlex.quote(str(folder))}\n"
        f"Check it:    fssbench plugin check {name}\n"
        f"Change it:   {init.parent / 'model.py'}"
    )


@plugin.command()
@click.argument("name", shell_complete=plugins)
@click.option("--backbone", default="", shell_complete=names_of("backbone"),
              help="Encoder of matchers  [default: their recipe's].")  # fmt: skip
@click.option("--encoder", "encoders", multiple=True, callback=pairs, metavar="ROLE=NAME",
              shell_complete=names_of("backbone"),
              help="Encoder of matchers on whole images  [default: their small ones].")  # fmt: skip
@option_of("matchers")
@data_options
@json_option
def check(name: str, as_json: bool, **settings: Any) -> int:
    """Check all objects that a plugin registers. Exit code 1 if a check fails.

    NAME is a loaded plugin, an installed distribution, a module, or a .py file.
    """
    import logging

    import attrs

    from fssbench.testing.plugin import Settings, check_plugin, find_plugins

    found: list[Checked] = []
    plugins = find_plugins(name)
    # Random weights, which the checks use, cause warnings.
    logging.disable(logging.WARNING)
    try:
        for info in plugins:
            for checked in check_plugin(info, Settings(**settings)):
                found.append(checked)
                if not as_json:
                    _show(checked)
    finally:
        logging.disable(logging.NOTSET)
    failures = [(c, o) for c in found for o in c.outcomes if o.verdict == "failed"]
    if as_json:
        print_json([attrs.asdict(checked) for checked in found])
        return 1 if failures else 0
    for checked, outcome in failures:
        click.echo(f"{checked.kind} {checked.name}, {outcome.check}:")
        click.echo(f"  expected: {outcome.expected}")
        click.echo(f"  observed: {outcome.seen}")
        click.echo(f"  location: {outcome.look}\n" if outcome.look else "")
    results = [outcome.verdict for checked in found for outcome in checked.outcomes]
    counts = [f"{results.count(r)} {r}" for r in _STYLES if r in results]
    click.echo(", ".join(counts) or "the plugin registers nothing that can be checked")
    return 1 if failures else 0


def _show(checked: Checked) -> None:
    from rich.text import Text

    title = f"{checked.kind} {checked.name}"
    table = make_table("check", "result", "observation", text=3, frame=False, title=title)
    for outcome in checked.outcomes:
        result = Text(outcome.verdict, style=_STYLES[outcome.verdict])
        table.add_row(outcome.check, result, Text(outcome.seen))
    print_table(table)
