"""``fssbench board submit``."""

from __future__ import annotations

from pathlib import Path

import click

from fssbench.cli.options import plugin_option


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--to", "board", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="Folder of the boards.")  # fmt: skip
@plugin_option
def submit(runs: tuple[Path, ...], board: Path) -> None:
    """Add finished runs to a public board, when they verify and hold nothing private.

    RUN is a run directory, or a folder that holds some.
    """
    from fssbench.board.submit import submit as submit_runs

    done = submit_runs(runs, board)
    for folder in done.added:
        click.echo(f"added    {folder}")
    for folder in done.there:
        click.echo(f"is there {folder}")
    for path in done.pages:
        click.echo(f"built    {path}")
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"next: fssbench board check {board}, and a pull request with what changed below it")
