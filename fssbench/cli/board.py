"""``fssbench board``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.board_page import page
from fssbench.cli.board_submit import submit
from fssbench.cli.board_verify import verify
from fssbench.cli.options import json_option, numbers, plugin_option

if TYPE_CHECKING:
    from fssbench.board.compare import Paired
    from fssbench.statistics.compare import Difference


@click.group()
def board() -> None:
    """Make leaderboards from records, check and show them, and compare two methods."""


board.add_command(verify)
board.add_command(page)
board.add_command(submit)


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


@board.command()
@click.argument("a", metavar="RECORD_A", type=click.Path(path_type=Path))
@click.argument("b", metavar="RECORD_B", type=click.Path(path_type=Path))
@click.option("--fold", "folds", callback=numbers,
              help="Folds, e.g. 0,1  [default: all there are].")  # fmt: skip
@click.option("--shots", type=int, help="Of which number of supports, where a folder has several.")
@click.option("--seed", type=int, help="Of which manifest seed, where a folder has several.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
              help="Draw the differences by class and of the episodes.")  # fmt: skip
@json_option
@plugin_option
def compare(
    a: Path, b: Path, folds: tuple[int, ...] | None, shots: int | None, seed: int | None,
    plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Compare two methods on the same episodes: how much better is RECORD_B than RECORD_A?

    Each is a record.json, a run directory, or a folder with the records of all folds of a method.
    Differences are B - A, with 95 % intervals and p-values from a bootstrap over query images.
    """
    from fssbench.board.compare import Choice, compare_paths
    from fssbench.board.plot import check_plot, draw_comparison

    if plot:
        check_plot(plot)
    paired = compare_paths(a, b, Choice(folds=folds, shots=shots, seed=seed))
    if plot:
        draw_comparison(paired, plot)
    if as_json:
        click.echo(json.dumps(paired.to_fields(), indent=2, allow_nan=False))
    else:
        _print(paired)


_NAMES = {"miou": "mIoU", "fb_iou": "FB-IoU", "episode_miou": "episode mIoU"}


def _print(paired: Paired) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    record, result = paired.record, paired.comparison
    several = len(paired.folds) > 1
    folds = f"fold{'s' * several} {', '.join(map(str, paired.folds))}"
    seed = f", seed {record.seed}" if record.seed else ""
    for letter, label in zip("AB", paired.labels, strict=True):
        console.print(Text(f"{letter}: {label}"))
    console.print(Text(f"{record.protocol}, {record.shots}-shot{seed}, {folds}\n"))
    scores = _table("Scores, mean over folds" if several else "Scores", "Score")
    for name, value in result.scores.items():
        scores.add_row(_NAMES[name], *_cells(value))
    console.print(scores)
    if several:
        by_fold = _table("mIoU by fold", "Fold")
        for fold, values in zip(paired.folds, result.folds, strict=True):
            by_fold.add_row(str(fold), *_cells(values["miou"]))
        console.print(by_fold)
    by_class = _table("IoU by class", "Class", "Fold", "Images")
    for line in result.classes:
        fold = paired.folds[line.table]
        by_class.add_row(
            Text(paired.class_name(fold, line.class_id)),
            str(fold),
            str(line.images),
            *_cells(line.iou, digits=1),
        )
    console.print(by_class)
    console.print(
        f"Episodes: B is better in {result.wins}, equal in {result.ties}, worse in {result.losses}."
    )
    if min(result.images) < FEW:
        console.print(
            f"A fold has only {min(result.images)} query images; below about {FEW}, intervals are "
            "too narrow."
        )


FEW = 30
"""Number of query images of a fold below which bootstrap intervals are unreliable."""


def _table(title: str, *names: str) -> Any:
    from rich import box
    from rich.table import Table

    # Without frames a class name has room in 80 columns.
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column(names[0], overflow="fold")
    for name in (*names[1:], "A", "B", "B - A", "95 % CI", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _cells(value: Difference, digits: int = 2) -> list[str]:
    difference = f"{value.difference:+.{digits}f}"
    return [
        f"{value.a:.{digits}f}",
        f"{value.b:.{digits}f}",
        f"[bold]{difference}[/]" if value.significant else difference,
        f"{value.low:+.{digits}f} to {value.high:+.{digits}f}",
        "<0.001" if value.p_value < 0.001 else f"{value.p_value:.3f}",
    ]
