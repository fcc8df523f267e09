"""Results of evaluated cells, as tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fssbench.cli.output import make_table, print_json, print_table

if TYPE_CHECKING:
    from fssbench.evaluation.evaluator import CellOutcome
    from fssbench.results.record import Record

_SCORES = ("miou", "fb_iou", "episode_miou")


def print_outcomes(
    results: Sequence[CellOutcome], out: Path, as_json: bool, *, grid: bool = False
) -> None:
    """Print the results of an evaluation.

    Args:
        results: evaluated cells.
        out: folder of the run directories.
        as_json: print the records, instead of a table.
        grid: the cells are of several methods.
    """
    if as_json:
        print_json([{"path": str(r.folder), **json.loads(r.record.to_json())} for r in results])
        return
    groups: dict[tuple[str, str, int, int], list[CellOutcome]] = {}
    for result in results:
        record = result.record
        key = str(result.folder.parent), record.protocol, record.shots, record.seed
        groups.setdefault(key, []).append(result)
    (_print_grid if grid else _print_method)(list(groups.values()))
    if not any(result.fresh for result in results):
        click.echo("No episode was measured: these runs were already finished.")
    if not grid:
        folder = results[0].folder
        click.echo(f"Records: {folder.parent if len(results) > 1 else folder}")
    click.echo(f"Board:   fssbench board build {out} --out boards")


def _print_grid(groups: Sequence[Sequence[CellOutcome]]) -> None:
    table = make_table("method", "backbone", "fold", "shots", "seed", "mIoU", "95 % interval",
                       "FB-IoU", "ms/episode", text=2)  # fmt: skip
    for group in groups:
        for record in (result.record for result in group):
            *scores, _, time = _cells(record)
            table.add_row(record.matcher, record.backbone, *_cell(record), *scores, time)
        table.add_section()
    print_table(table, width=110)


def _print_method(groups: Sequence[Sequence[CellOutcome]]) -> None:
    from rich.text import Text

    from fssbench.results.record import ROWS_FILE
    from fssbench.results.rows import read_rows
    from fssbench.statistics.intervals import score_intervals

    records = [result.record for group in groups for result in group]
    first, weights = records[0], records[0].weights
    source = f"weights {weights.name}" if weights.source == "file" else weights.source
    table = make_table("fold", "shots", "seed", "mIoU", "95 % interval", "FB-IoU", "episode mIoU",
                       "ms/episode", text=0,
                       title=f"{first.matcher} on {first.backbone} ({source}), {first.protocol}",
                       )  # fmt: skip
    for group in groups:
        for result in group:
            table.add_row(*_cell(result.record), *_cells(result.record))
        if len(group) > 1:
            means = [sum(r.record.scores[name] for r in group) / len(group) for name in _SCORES]
            low, high = score_intervals([read_rows(r.folder / ROWS_FILE) for r in group])["miou"]
            _, *cell = _cell(group[0].record)
            table.add_row(
                "mean", *cell, Text(f"{means[0]:.2f}", "bold"), f"{low:.2f} to {high:.2f}",
                *(f"{mean:.2f}" for mean in means[1:]), "",
            )  # fmt: skip
        table.add_section()
    print_table(table, width=88)
    for name in sorted({name for record in records for name in record.scores} - {*_SCORES}):
        folds = (f"fold {r.fold} {r.scores[name]:.2f}" for r in records if name in r.scores)
        click.echo(f"{name}: {', '.join(folds)}")
    if first.trained_on:
        header = first.checkpoint.header if first.checkpoint else {}
        facts = (f"{name} {header[name]}" for name in ("fold", "stage", "recipe") if name in header)
        click.echo(f"Trained on another dataset: {', '.join([first.trained_on, *facts])}.")
    for note in sorted({record.rankable for record in records} - {""}):
        click.echo(f"These rows never rank on a board: {note}.")
    dropped = sorted({name for record in records for name in record.manifest.dropped})
    if dropped:
        click.echo(f"Classes left out, too few images: {', '.join(dropped)}.")


def _cell(record: Record) -> list[str]:
    return [str(record.fold), str(record.shots), str(record.seed)]


def _cells(record: Record) -> list[str]:
    """Return mIoU, its interval, FB-IoU, episode mIoU and milliseconds per episode."""
    low, high = record.intervals["miou"]
    miou, *others = (f"{record.scores[name]:.2f}" for name in _SCORES)
    return [
        miou, f"{low:.2f} to {high:.2f}", *others,
        f"{1000 * (record.cost.seconds_per_episode or 0.0):.1f}",
    ]  # fmt: skip
