"""``fssbench board``."""

from __future__ import annotations

from pathlib import Path

import click

from fssbench.cli.options import plugin_option


@click.group()
def board() -> None:
    """Make leaderboards from records, and check them."""


@board.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the boards.")
@plugin_option
def build(runs: tuple[Path, ...], out: Path) -> None:
    """Copy the records below RUNS to OUT/results and write one markdown file for each dataset."""
    from fssbench.board.board import build_boards

    for path in build_boards(runs, out):
        click.echo(path)


@board.command()
@click.argument("folder", type=click.Path(path_type=Path))
@plugin_option
def check(folder: Path) -> int:
    """Check that boards follow from their records, and records from their rows.

    Exit code 1 when they do not.
    """
    from fssbench.board.check import check_boards

    problems = check_boards(folder)
    for problem in problems:
        click.echo(problem, err=True)
    click.echo("fine" if not problems else f"{len(problems)} problems", err=bool(problems))
    return 1 if problems else 0
