"""``fssbench board``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.board_verify import verify
from fssbench.cli.options import PATH, json_option, numbers
from fssbench.cli.output import make_table, plain_console, print_json, report_problems

if TYPE_CHECKING:
    from fssbench.board.compare import Paired
    from fssbench.evaluation.progress import ProgressLine
    from fssbench.statistics.compare import Difference


class _Tasks:
    """Progress of a board on stderr, one bar for each task."""

    def __init__(self) -> None:
        self._task = ("", 0)
        self._bar: ProgressLine | None = None

    def __enter__(self) -> _Tasks:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, task: str, done: int, total: int) -> None:
        """Show the finished and all items of a task."""
        from rich.console import Console

        from fssbench.evaluation.progress import ProgressLine

        if self._bar is None or (task, total) != self._task:
            self.__exit__()
            self._task = (task, total)
            self._bar = ProgressLine(Console(stderr=True), "items", ("rate", "eta"))
            self._bar.start(task, task, total, 0)
        self._bar.advance(done, 0)


@click.group()
def board() -> None:
    """Build, check and publish leaderboards, and compare two methods."""


board.add_command(verify)


@board.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option("--out", type=PATH, required=True, help="Folder of the boards.")
def build(runs: tuple[Path, ...], out: Path) -> None:
    """Copy the records below RUNS to OUT/results and write one markdown file for each dataset."""
    from fssbench.board.board import build_boards

    with _Tasks() as progress:
        pages = build_boards(runs, out, progress)
    for path in pages:
        click.echo(path)


@board.command()
@click.argument("folder", type=PATH)
def check(folder: Path) -> int:
    """Check that boards follow from their records, and records from their rows.

    Exit code 1 if they do not.
    """
    from fssbench.board.check import check_boards

    with _Tasks() as progress:
        found = check_boards(folder, progress)
    return report_problems(found)


@board.command()
@click.argument("folder", type=PATH)
@click.option("--out", type=PATH, metavar="FILE.html",
              help="File to write  [default: index.html in FOLDER].")  # fmt: skip
def page(folder: Path, out: Path | None) -> None:
    """Write the boards in FOLDER as one self-contained HTML page."""
    from fssbench.board.site.page import write_page

    with _Tasks() as progress:
        file = write_page(folder, out, progress)
    click.echo(file)


@board.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=PATH)
@click.option("--to", "board", type=PATH, required=True, metavar="FOLDER",
              help="Folder of the boards.")  # fmt: skip
def submit(runs: tuple[Path, ...], board: Path) -> None:
    """Verify finished runs, check them for private data, and add them to a public board.

    RUN is a run directory, or a folder of run directories.
    """
    from fssbench.board.submit import submit as submit_runs

    with _Tasks() as progress:
        done = submit_runs(runs, board, progress)
    for label, paths in (("added", done.added), ("is there", done.there), ("built", done.pages)):
        for path in paths:
            click.echo(f"{label:8} {path}")
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"next: fssbench board check {board}, and a pull request with the changes below it")


@board.command()
@click.argument("folder", type=PATH)
@click.option("--to", required=True, metavar="hf://datasets/USER/NAME",
              help="Data set on the Hugging Face hub, created if there is none.")  # fmt: skip
def push(folder: Path, to: str) -> None:
    """Check the boards in FOLDER and upload them as a data set of the Hugging Face hub.

    The access token is that of `hf auth login`, or HF_TOKEN.
    """
    from fssbench.board.share import push_boards

    with _Tasks() as progress:
        address = push_boards(folder, to, progress)
    click.echo(address)


@board.command()
@click.argument("address", metavar="hf://datasets/USER/NAME[@REVISION]")
@click.option("--to", "folder", type=PATH, required=True, metavar="FOLDER",
              help="New folder of the boards.")  # fmt: skip
def pull(address: str, folder: Path) -> int:
    """Download boards from the Hugging Face hub and check them.

    Exit code 1 if they do not pass the check.
    """
    from fssbench.board.share import pull_boards

    with _Tasks() as progress:
        found = pull_boards(address, folder, progress)
    return report_problems(found)


@board.command()
@click.argument("a", metavar="RECORD_A", type=PATH)
@click.argument("b", metavar="RECORD_B", type=PATH)
@click.option("--fold", "folds", callback=numbers, help="Folds, e.g. 0,1  [default: all].")
@click.option("--shots", type=int, help="Number of supports, for a folder with several.")
@click.option("--seed", type=int, help="Seed of the manifest, for a folder with several.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
              help="Plot the differences by class and the episodes' differences.")  # fmt: skip
@json_option
def compare(a: Path, b: Path, plot: Path | None, as_json: bool, **choice: Any) -> None:
    """Compare two methods on the same episodes: how much better is RECORD_B than RECORD_A?

    Each is a record.json, a run directory, or a folder with the records of all folds of a method.
    Differences are B - A, with 95 % intervals and p-values from a bootstrap over query images.
    """
    from fssbench.board.compare import Choice, compare_paths
    from fssbench.board.plot import check_plot, draw_comparison

    if plot:
        check_plot(plot)
    paired = compare_paths(a, b, Choice(**choice))
    if plot:
        draw_comparison(paired, plot)
    if as_json:
        print_json(paired.to_fields(), allow_nan=False)
    else:
        _print(paired)


FEW = 30
"""Number of query images of a fold below which bootstrap intervals are unreliable."""


def _print(paired: Paired) -> None:
    from fssbench.board.plot import SCORES

    console = plain_console()
    record, result = paired.record, paired.comparison
    several = len(paired.folds) > 1
    folds = f"fold{'s' * several} {', '.join(map(str, paired.folds))}"
    seed = f", seed {record.seed}" if record.seed else ""
    for letter, label in zip("AB", paired.labels, strict=True):
        console.print(f"{letter}: {label}")
    console.print(f"{record.protocol}, {record.shots}-shot{seed}, {folds}\n")
    scores = _table("Scores, mean over folds" if several else "Scores", "Score")
    for name, value in result.scores.items():
        scores.add_row(SCORES[name], *_cells(value))
    console.print(scores)
    if several:
        by_fold = _table("mIoU by fold", "Fold")
        for fold, values in zip(paired.folds, result.folds, strict=True):
            by_fold.add_row(str(fold), *_cells(values["miou"]))
        console.print(by_fold)
    by_class = _table("IoU by class", "Class", "Fold", "Images")
    for line in result.classes:
        fold = paired.folds[line.table]
        cells = (str(fold), str(line.images), *_cells(line.iou, digits=1))
        by_class.add_row(paired.class_name(fold, line.class_id), *cells)
    console.print(by_class)
    counted = "Ways of episodes" if record.ways > 1 else "Episodes"
    console.print(
        f"{counted}: B is better in {result.wins}, equal in {result.ties}, "
        f"worse in {result.losses}."
    )
    if (least := min(result.images)) < FEW:
        reason = f"below about {FEW}, intervals are too narrow"
        console.print(f"A fold has only {least} query images; {reason}.")


def _table(title: str, *names: str) -> Any:
    return make_table(*names, "A", "B", "B - A", "95 % CI", "p", title=title, frame=False)


def _cells(value: Difference, digits: int = 2) -> list[Any]:
    from rich.text import Text

    return [
        f"{value.a:.{digits}f}",
        f"{value.b:.{digits}f}",
        Text(f"{value.difference:+.{digits}f}", style="bold" if value.significant else ""),
        f"{value.low:+.{digits}f} to {value.high:+.{digits}f}",
        "<0.001" if value.p_value < 0.001 else f"{value.p_value:.3f}",
    ]
