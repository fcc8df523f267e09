"""``fssbench board page``."""

from __future__ import annotations

from pathlib import Path

import click

from fssbench.cli.options import plugin_option


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.html",
              help="The page  [default: index.html in FOLDER].")  # fmt: skip
@plugin_option
def page(folder: Path, out: Path | None) -> None:
    """Write the boards in FOLDER as one HTML page that needs nothing beside itself."""
    from fssbench.board.site.page import write_page

    click.echo(write_page(folder, out))
