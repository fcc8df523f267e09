"""``fssbench board verify``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.options import data_options, json_option, plugin_option

if TYPE_CHECKING:
    from fssbench.evaluation.reproduction import Difference, Reproduction

MOST = 20
"""Maximum number of differing episodes in the table."""


@click.command()
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--episodes", type=int, default=50, show_default=True,
              help="How many to do again, drawn at random.")  # fmt: skip
@click.option("--seed", type=int, help="Of the draw  [default: another one each time].")
@click.option("--checkpoint", type=click.Path(path_type=Path),
              help="The trained matcher, where the record has one.")  # fmt: skip
@click.option("--weights", default="",
              help="Of the backbone, where they are a file.")  # fmt: skip
@data_options
@click.option("--lists", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Authors' list files, for a protocol of the literature.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--workers", type=int, help="Loader processes (default: one less than the cores).")
@click.option("--tolerance", type=click.FloatRange(0, 1), metavar="SHARE",
              help="Share of an image's pixels by which counts may differ  [default: 0 under the "
              "same conditions, otherwise 0.0001].")  # fmt: skip
@json_option
@plugin_option
def verify(record: Path, as_json: bool, **settings: Any) -> int:
    """Do some episodes of RECORD again: do the rows that it rests on come out?

    RECORD is a record.json, a run directory, or an entry of a board's results. Exit code 0 when the
    record stands, 1 when not.
    """
    from fssbench.evaluation.reproduce import Rerun, verify_record

    verdict = verify_record(record, Rerun(**settings))
    if as_json:
        click.echo(json.dumps(verdict.to_fields(), indent=2, default=str))
    else:
        _print(verdict)
    return 0 if verdict.stands else 1


def _print(verdict: Reproduction) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    record, count = verdict.record, len(verdict.sample)
    console.print(
        Text(
            f"{record.matcher} on {record.backbone}, {record.protocol}, fold {record.fold}, "
            f"{record.shots}-shot, seed {record.seed}"
        )
    )
    for problem in verdict.problems:
        click.echo(f"Wrong: {problem}")
    if count:
        _print_conditions(verdict, console)
        total = record.manifest.episodes
        click.echo(f"Done again: {count} of {total} episodes, drawn with seed {verdict.seed}.")
        _print_differences(verdict, console)
        if count < total:
            click.echo(
                f"A sample of this size finds a change with 95 % certainty where "
                f"{verdict.detectable_rows} rows or more were changed."
            )
    else:
        click.echo("Nothing was done again: what is wrong is wrong with any model.")
    click.echo("The record stands." if verdict.stands else "The record does not stand.")


def _print_conditions(verdict: Reproduction, console: Any) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in ("", "then", "now"):
        table.add_column(name, overflow="fold")
    for name, then in verdict.then.items():
        if then is None and verdict.now[name] is None:
            continue
        style = "bold" if name in verdict.changed else ""
        cells = [name.replace("_", " "), _escaped(then), _escaped(verdict.now[name])]
        table.add_row(*(Text(cell, style=style) for cell in cells))
    console.print(table)
    if verdict.changed:
        changed = ", ".join(name.replace("_", " ") for name in verdict.changed)
        click.echo(f"Not the same as then: {changed}.")
    if verdict.tolerance:
        click.echo(
            f"Counts may differ by {verdict.tolerance:g} of an image's pixels, one in "
            f"{1 / verdict.tolerance:,.0f}."
        )
    else:
        click.echo("Counts must be equal to the pixel.")


def _print_differences(verdict: Reproduction, console: Any) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not verdict.differences:
        click.echo("All of their rows came out again.")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("Episode", "Class", "Query", "Record -> now"):
        table.add_column(name, overflow="fold")
    for name in ("Pixels", "Allowed"):
        table.add_column(name, justify="right")
    # Those that decide come first.
    shown = sorted(verdict.differences, key=lambda each: (each.within, -each.pixels))
    for each in shown[:MOST]:
        cells = [
            str(each.index), each.class_name, each.query, _columns(each), str(each.pixels),
            str(each.allowed),
        ]  # fmt: skip
        table.add_row(*map(Text, cells))
    console.print(table)
    if len(shown) > MOST:
        click.echo(f"… and {len(shown) - MOST} more; --json has all.")
    outside = sum(not each.within for each in verdict.differences)
    click.echo(f"{len(shown)} rows differ, {outside} of them by more than is allowed.")


def _columns(each: Difference) -> str:
    return "; ".join(
        f"{name} {then:.6g} -> {now:.6g}" for name, (then, now) in each.columns.items()
    )


def _escaped(value: object) -> str:
    """Return text of an untrusted record, made safe for a terminal."""
    return "" if value is None else ascii(value).strip("'")[:70]
