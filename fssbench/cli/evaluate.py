"""``fssbench evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.completion import names_of
from fssbench.cli.config_file import config_option
from fssbench.cli.grid import evaluate_grid, print_estimate
from fssbench.cli.options import (
    PATH,
    cache_options,
    cell_options,
    data_options,
    json_option,
    method_options,
    names,
    process_options,
    size,
)
from fssbench.cli.outcomes import print_outcomes

if TYPE_CHECKING:
    from fssbench.evaluation.run import Run


@click.command()
@click.argument("matcher", default="", shell_complete=names_of("matcher"))
@click.option("--protocol", default="shapes/v1-1k", show_default=True, help="Protocol id.",
              shell_complete=names_of("protocol"))  # fmt: skip
@data_options
@cell_options
@method_options
@click.option("--any-fold", is_flag=True,
              help="Allow folds of classes it was trained on; such rows never rank.")  # fmt: skip
@click.option("--out", type=PATH, default=Path("runs"), show_default=True,
              help="Folder for run directories.")  # fmt: skip
@process_options
@click.option("--batch-size", type=int, default=1, show_default=True,
              help="Number of episodes in a batch.")  # fmt: skip
@click.option("--metrics", default="iou", show_default=True, callback=names, metavar="NAMES",
              shell_complete=names_of("metric"),
              help="Metrics, e.g. iou,regions; iou is required.")  # fmt: skip
@click.option("--cache-memory", callback=size, metavar="SIZE",
              help="Memory for features, e.g. 4G  [default: a quarter of the memory].")  # fmt: skip
@cache_options
@click.option("--cache-half", is_flag=True, help="Round features to float16; this changes rows.")
@click.option("--fresh", is_flag=True,
              help="Discard the rows of an earlier run in the same directory.")  # fmt: skip
@click.option("--save-predictions", is_flag=True,
              help="Save the predicted masks, for fssbench score.")  # fmt: skip
@click.option("--grid", type=PATH, metavar="FILE.toml",
              help="Evaluate methods x backbones x folds x shots x seeds.")  # fmt: skip
@click.option("--on", type=click.Choice(["local", "ray"]), default="local", show_default=True,
              help="Executor of a grid.")  # fmt: skip
@click.option("--estimate", is_flag=True,
              help="Estimate time and memory from one measured chunk; write no files.")  # fmt: skip
@click.option("--dry-run", is_flag=True,
              help="Check all settings and print the manifests; write nothing.")  # fmt: skip
@click.option("--panels", type=click.IntRange(min=0), default=0, show_default=True,
              help="Number of episodes of each fold to draw as PNG.")  # fmt: skip
@config_option
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context, /, matcher: str, as_json: bool, panels: int, grid: Path | None, on: str,
    estimate: bool, dry_run: bool, weights: dict[str, str], **settings: Any,
) -> None:  # fmt: skip
    """Evaluate MATCHER over the folds of a protocol; an interrupted evaluation is resumed.

    Without arguments: the baseline on the embedded benchmark, which needs no download.
    """
    from rich.console import Console

    from fssbench.evaluation.evaluate import evaluate as run_evaluation
    from fssbench.evaluation.evaluate import prepare
    from fssbench.evaluation.evaluation import Evaluation
    from fssbench.evaluation.panels import Panels
    from fssbench.evaluation.progress import ProgressReport

    if dry_run and grid is not None:
        raise click.UsageError("--dry-run checks one evaluation; a grid has --estimate", ctx)
    if grid is not None:
        evaluate_grid(ctx, grid, on=on, estimate=estimate, as_json=as_json)
        return
    if on != "local":
        raise click.UsageError("--on ray runs a grid: give --grid FILE.toml", ctx)
    encoder = weights.pop("", "pretrained")
    evaluation = Evaluation(matcher=matcher, weights=encoder, encoder_weights=weights, **settings)
    if estimate:
        print_estimate([evaluation], as_json)
        return
    if dry_run:
        evaluator = prepare(evaluation)
        manifests = evaluator.manifests()
        evaluator.training.warn(manifests)
        for manifest in manifests:
            click.echo(
                f"{manifest.protocol}, fold {manifest.fold}, {manifest.shots}-shot, seed "
                f"{manifest.seed}: {len(manifest.episodes)} episodes, {manifest.digest}"
            )
        return
    console = Console(stderr=True)
    reports: list[ProgressReport] = []

    def observers(run: Run) -> list[object]:
        reports.append(ProgressReport(console))
        return [reports[-1], Panels(run, panels)]

    try:
        results = run_evaluation(evaluation, observers=observers)
    finally:
        for report in reports:
            report.close()
    if results:  # only the first process has results
        print_outcomes(results, evaluation.out, as_json)
