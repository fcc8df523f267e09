"""``fssbench plugin``."""

from __future__ import annotations

from pathlib import Path

import click

from fssbench.cli.options import plugin_option


@click.group()
def plugin() -> None:
    """Write plugins."""


@plugin.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path),
              help="Folder to write, new or empty  [default: fssbench-NAME].")  # fmt: skip
@plugin_option
def new(name: str, to: Path | None) -> None:
    """Write a package with a matcher called NAME that runs as it stands."""
    import os
    import shlex

    from fssbench.scaffold.package import new_package

    written = new_package(name, to)
    for path in written:
        click.echo(path)
    init = next(path for path in written if path.name == "__init__.py")
    folder = Path(os.path.commonpath(written))
    click.echo(
        f"\nTry it:      fssbench evaluate {name} -p {shlex.quote(str(init))} --limit 20\n"
        f"Install it:  pip install -e {shlex.quote(str(folder))}\n"
        f"Change it:   {init.parent / 'model.py'}"
    )
