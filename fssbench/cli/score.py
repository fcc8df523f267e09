"""``fssbench score``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fssbench.cli.completion import names_of
from fssbench.cli.options import PATH, data_options, json_option, names
from fssbench.cli.output import make_table, plain_console, print_json


@click.command()
@click.argument("run", type=PATH)
@click.option("--metric", "metrics", required=True, callback=names, metavar="NAMES",
              shell_complete=names_of("metric"),
              help="Metrics, e.g. boundary,regions; fssbench list metrics lists them.")  # fmt: skip
@data_options
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the scores as JSON, e.g. into the run directory.")  # fmt: skip
@json_option
def score(
    run: Path, metrics: tuple[str, ...], out: Path | None, as_json: bool, **dataset: Any
) -> None:
    """Score RUN, a finished run directory or its record.json, by further metrics.

    Scores are computed from its rows if they have the columns of a metric, otherwise from the masks
    of evaluate --save-predictions. The record is not changed.
    """
    from fssbench.evaluation.rescore import check_scores_file, score_run, write_scores

    if out:
        check_scores_file(out)
    scores = score_run(run, metrics, **dataset)
    if out:
        write_scores(scores, out)
    if as_json:
        print_json(scores.to_fields(), allow_nan=False)
        return
    record, console = scores.record, plain_console()
    console.print(
        f"{record.matcher} on {record.backbone}, {record.protocol}, fold {record.fold}, "
        f"{record.shots}-shot, {record.manifest.episodes} episodes"
    )
    table = make_table("score", "value", "95 % interval")
    table.add_column("from")
    for each in scores.metrics:
        for name, value in each.scores.items():
            low, high = each.intervals.get(name, (None, None))
            between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            table.add_row(name, f"{value:.3f}", between, each.source)
    console.print(table)
    if out:
        click.echo(f"Scores: {out}")
