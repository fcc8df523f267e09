"""``fssbench board verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.options import PATH, json_option, rerun_options
from fssbench.cli.output import make_table, plain_console, print_json

if TYPE_CHECKING:
    from fssbench.evaluation.reproduction import Reproduction

MOST = 20
"""Maximum number of differing episodes in the table."""


@click.command()
@click.argument("record", type=PATH)
@click.option("--episodes", type=int, default=50, show_default=True,
              help="Number of episodes to measure again, drawn at random.")  # fmt: skip
@click.option("--seed", type=int, help="Seed of the draw  [default: another one each time].")
@rerun_options
@click.option("--tolerance", type=click.FloatRange(0, 1), metavar="SHARE",
              help="Share of an image's pixels by which counts may differ  [default: 0 under the "
              "same conditions, otherwise 0.0001].")  # fmt: skip
@json_option
def verify(record: Path, as_json: bool, weights: dict[str, str], **settings: Any) -> int:
    """Measure some episodes of RECORD again and compare the rows.

    RECORD is a record.json, a run directory, or an entry of a board's results. Exit code 0 if the
    record is reproduced, otherwise 1.
    """
    from fssbench.evaluation.reproduce import Rerun, verify_record

    encoder = weights.pop("", "")
    rerun = Rerun(weights=encoder, encoder_weights=weights, **settings)
    found = verify_record(record, rerun)
    if as_json:
        print_json(found.to_fields(), default=str)
    else:
        _print(found)
    return 0 if found.stands else 1


def _print(found: Reproduction) -> None:
    console = plain_console()
    record, count = found.record, len(found.sample)
    console.print(
        f"{record.matcher} on {record.backbone}, {record.protocol}, fold {record.fold}, "
        f"{record.shots}-shot, seed {record.seed}"
    )
    for problem in found.problems:
        click.echo(f"Wrong: {problem}")
    if count:
        _print_conditions(found, console)
        total = record.manifest.episodes
        click.echo(f"Measured again: {count} of {total} episodes, drawn with seed {found.seed}.")
        _print_differences(found, console)
        if count < total:
            click.echo(
                f"A sample of this size finds a change with 95 % certainty where "
                f"{found.detectable_rows} rows or more were changed."
            )
    else:
        click.echo("No episode was measured again: the problems do not depend on the model.")
    click.echo("The record stands." if found.stands else "The record does not stand.")


def _print_conditions(found: Reproduction, console: Any) -> None:
    table = make_table("", "then", "now", text=3)
    for name, then in found.then.items():
        if then is None and found.now[name] is None:
            continue
        cells = name.replace("_", " "), _escaped(then), _escaped(found.now[name])
        table.add_row(*cells, style="bold" if name in found.changed else None)
    console.print(table)
    if found.changed:
        click.echo(f"Changed conditions: {', '.join(found.changed).replace('_', ' ')}.")
    allowed = "must be equal to the pixel"
    if share := found.tolerance:
        allowed = f"may differ by {share:g} of an image's pixels, one in {1 / share:,.0f}"
    click.echo(f"Counts {allowed}.")


def _print_differences(found: Reproduction, console: Any) -> None:
    if not found.differences:
        click.echo("All rows are the same.")
        return
    headings = ("Episode", "Class", "Query", "Record -> now", "Pixels", "Allowed")
    table = make_table(*headings, text=4, frame=False)
    # Differences above the tolerance come first.
    shown = sorted(found.differences, key=lambda each: (each.within, -each.pixels))
    for each in shown[:MOST]:
        columns = "; ".join(f"{k} {a:.6g} -> {b:.6g}" for k, (a, b) in each.columns.items())
        cells = each.index, each.class_name, each.query, columns, each.pixels, each.allowed
        table.add_row(*map(str, cells))
    console.print(table)
    if len(shown) > MOST:
        click.echo(f"… and {len(shown) - MOST} more; --json shows all.")
    outside = sum(not each.within for each in found.differences)
    click.echo(f"{len(shown)} rows differ, {outside} of them by more than is allowed.")


def _escaped(value: object) -> str:
    """Return text of an untrusted record, made safe for a terminal."""
    return "" if value is None else ascii(value).strip("'")[:70]
