"""``fssbench score``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.options import data_options, json_option, names, plugin_option

if TYPE_CHECKING:
    from fssbench.evaluation.rescore import Scores


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--metric", "metrics", required=True, callback=names, metavar="NAMES",
              help="Metrics, e.g. boundary,regions; fssbench list metrics shows them.")  # fmt: skip
@data_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the scores as JSON, e.g. into the run directory.")  # fmt: skip
@json_option
@plugin_option
def score(
    run: Path, metrics: tuple[str, ...], data_root: Path | None, data_options: dict[str, Any],
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Score RUN, a finished run directory or its record.json, by further metrics.

    From its rows where they hold what a metric needs, otherwise from the masks that evaluate
    --save-predictions kept. The record stays as it is.
    """
    from fssbench.evaluation.rescore import check_scores_file, score_run, write_scores

    if out:
        check_scores_file(out)
    scores = score_run(run, metrics, data_root=data_root, data_options=data_options)
    if out:
        write_scores(scores, out)
    if as_json:
        click.echo(json.dumps(scores.to_fields(), indent=2, allow_nan=False))
        return
    _print(scores)
    if out:
        click.echo(f"Scores: {out}")


def _print(scores: Scores) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    record = scores.record
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        Text(
            f"{record.matcher} on {record.backbone}, {record.protocol}, fold {record.fold}, "
            f"{record.shots}-shot, {record.manifest.episodes} episodes"
        )
    )
    table = Table()
    table.add_column("score")
    for name in ("value", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("from")
    for each in scores.metrics:
        for name, value in each.scores.items():
            low, high = each.intervals.get(name, (None, None))
            between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            table.add_row(Text(name), f"{value:.3f}", between, each.source)
    console.print(table)
