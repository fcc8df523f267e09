"""``fssbench evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.grid import evaluate_grid, print_estimate, print_json
from fssbench.cli.options import (
    cell_options,
    data_options,
    json_option,
    names,
    pairs,
    plugin_option,
    size,
)

if TYPE_CHECKING:
    from fssbench.evaluation.evaluator import CellOutcome


@click.command()
@click.argument("matcher", default="")
@click.option("--backbone", default="",
              help="Frozen encoder  [default: the checkpoint's, or tiny-resnet].")  # fmt: skip
@click.option("--protocol", default="shapes/v1-1k", show_default=True, help="Protocol id.")
@data_options
@cell_options
@click.option("--weights", default="pretrained", show_default=True,
              help="Of the backbone: pretrained, random, or a file.")  # fmt: skip
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Trained matcher; "
              "brings its name, options, backbone and fold along.")  # fmt: skip
@click.option("--any-fold", is_flag=True,
              help="Also folds whose classes it was trained on; such rows never rank.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
              help="Folder for run directories.")  # fmt: skip
@click.option("-o", "--option", "options", multiple=True, callback=pairs, metavar="KEY=VALUE",
              help="Option of the matcher; fssbench show matcher NAME lists them.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--devices", type=int, default=1, show_default=True,
              help="Processes, each on a device of its own; torchrun knows by itself.")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--workers", type=int, help="Loader processes (default: one less than the cores).")
@click.option("--batch-size", type=int, default=1, show_default=True,
              help="Episodes segmented at once.")  # fmt: skip
@click.option("--metrics", default="iou", show_default=True, callback=names, metavar="NAMES",
              help="What to measure, e.g. iou,regions; iou always is.")  # fmt: skip
@click.option("--cache-memory", callback=size, metavar="SIZE",
              help="Of features in memory, e.g. 4G  [default: a quarter of it].")  # fmt: skip
@click.option("--cache-dir", type=click.Path(path_type=Path),
              help="Folder for features on disk, which other runs find again.")  # fmt: skip
@click.option("--cache-limit", callback=size, default="50G", show_default=True, metavar="SIZE",
              help="Of all features in --cache-dir.")  # fmt: skip
@click.option("--cache-half", is_flag=True,
              help="Round features to float16; rows depend on it.")  # fmt: skip
@click.option("--save-predictions", is_flag=True,
              help="Keep the predicted masks, for fssbench score.")  # fmt: skip
@click.option("--grid", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Evaluate methods x backbones x folds x shots x seeds.")  # fmt: skip
@click.option("--on", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="Where a grid runs.")  # fmt: skip
@click.option("--estimate", is_flag=True,
              help="Say what it will take, from one measured chunk; writes nothing.")  # fmt: skip
@click.option("--panels", type=click.IntRange(min=0), default=0, show_default=True,
              help="Episodes of each fold to draw as PNG.")  # fmt: skip
@json_option
@plugin_option
@click.pass_context
def evaluate(
    ctx: click.Context, /, matcher: str, as_json: bool, panels: int, grid: Path | None, on: str,
    estimate: bool, **settings: Any,
) -> None:  # fmt: skip
    """Evaluate MATCHER over the folds of a protocol; an interrupted evaluation goes on.

    Without arguments: the baseline on the embedded benchmark, which needs no download.
    """
    from rich.console import Console

    from fssbench.evaluation.evaluate import evaluate as run_evaluation
    from fssbench.evaluation.evaluation import Evaluation
    from fssbench.evaluation.panels import Panels
    from fssbench.evaluation.progress import ProgressReport
    from fssbench.evaluation.run import Run

    if grid is not None:
        evaluate_grid(ctx, grid, on=on, estimate=estimate, as_json=as_json)
        return
    if on != "local":
        raise click.UsageError("--on ray runs a grid: give --grid FILE.toml", ctx)
    if estimate:
        print_estimate([Evaluation(matcher=matcher, **settings)], as_json)
        return
    console = Console(stderr=True)
    reports: list[ProgressReport] = []

    def observers(run: Run) -> list[object]:
        reports.append(ProgressReport(console))
        return [reports[-1], Panels(run, panels)]

    evaluation = Evaluation(matcher=matcher, **settings)
    try:
        results = run_evaluation(evaluation, observers=observers)
    finally:
        for report in reports:
            report.close()
    if not results:  # the first process says it
        return
    if as_json:
        print_json(results)
    else:
        _print_table(results, evaluation.out)


def _print_table(results: Sequence[CellOutcome], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from fssbench.results.record import ROWS_FILE
    from fssbench.results.rows import read_rows
    from fssbench.statistics.intervals import score_intervals

    first = results[0].record
    table = Table(
        title=f"{first.matcher} on {first.backbone} ({_weights(first)}), {first.protocol}"
    )
    for name in ("fold", "shots", "seed", "mIoU", "95 % interval", "FB-IoU", "episode mIoU",
                 "ms/episode"):  # fmt: skip
        table.add_column(name, justify="right")
    groups: dict[tuple[int, int], list[CellOutcome]] = {}
    for result in results:
        groups.setdefault((result.record.shots, result.record.seed), []).append(result)
    for (shots, seed), group in groups.items():
        records = [result.record for result in group]
        for record in records:
            low, high = record.intervals["miou"]
            table.add_row(
                str(record.fold), str(shots), str(seed), f"{record.scores['miou']:.2f}",
                f"{low:.2f} to {high:.2f}", f"{record.scores['fb_iou']:.2f}",
                f"{record.scores['episode_miou']:.2f}",
                f"{1000 * record.cost.seconds_per_episode:.1f}",
            )  # fmt: skip
        if len(records) > 1:
            means = [
                sum(r.scores[name] for r in records) / len(records)
                for name in ("miou", "fb_iou", "episode_miou")
            ]
            low, high = score_intervals([read_rows(r.folder / ROWS_FILE) for r in group])["miou"]
            table.add_row(
                "mean", str(shots), str(seed), f"[bold]{means[0]:.2f}[/bold]",
                f"{low:.2f} to {high:.2f}", f"{means[1]:.2f}", f"{means[2]:.2f}", "",
            )  # fmt: skip
        table.add_section()
    console = Console()
    # A narrow terminal must not cut numbers off.
    console.width = max(console.width, 88)
    console.print(table)
    for note in sorted({r.record.rankable for r in results} - {""}):
        click.echo(f"These rows never rank on a board: {note}.")
    dropped = sorted({name for r in results for name in r.record.manifest.dropped})
    if dropped:
        click.echo(f"Classes left out for want of images: {', '.join(dropped)}.")
    if not any(result.fresh for result in results):
        click.echo("Nothing was measured anew: these runs were finished before.")
    click.echo(f"Records: {_common_folder(results)}")
    click.echo(f"Board:   fssbench board build {out} --out boards")


def _weights(record: Any) -> str:
    weights = record.weights
    return weights.source if weights.source != "file" else f"weights {weights.name}"


def _common_folder(results: Sequence[CellOutcome]) -> Path:
    return results[0].folder.parent if len(results) > 1 else results[0].folder
