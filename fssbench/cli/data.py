"""``fssbench data``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from fssbench.cli.options import data_options, json_option, plugin_option


@click.group()
def data() -> None:
    """Look at datasets."""


@data.command()
@click.argument("dataset")
@data_options
@click.option("--split", help="Only this split (default: all).")
@json_option
@plugin_option
def check(
    dataset: str, data_root: Path | None, data_options: dict[str, str], split: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Open every image and mask, and count classes. Exit code 1 when something is wrong."""
    from rich.console import Console
    from rich.progress import track

    from fssbench import build
    from fssbench.data.check import check_image, count_classes
    from fssbench.errors import FssbenchError

    made = build.dataset(dataset, data_root, **data_options)
    report: dict[str, object] = {}
    problems: list[str] = []
    missing: list[FssbenchError] = []
    for name in made.splits if split is None else (split,):
        try:
            made.check_split(name)
            ids = made.image_ids(name)
        except FssbenchError as error:
            missing.append(error)
            report[name] = "not there"
            continue
        for image_id in track(
            ids, f"{name}: opening", console=Console(stderr=True), transient=True
        ):
            problems += check_image(made, image_id)
        if not problems:
            report[name] = {"images": len(ids), "classes": count_classes(made, name)}
    if missing and len(missing) == len(report):
        raise missing[0]
    if as_json:
        click.echo(json.dumps({"splits": report, "problems": problems}, indent=2))
    else:
        for name, found in report.items():
            if isinstance(found, dict):
                click.echo(f"{name}: {found['images']} images")
                for line in found["classes"]:
                    click.echo(
                        f"  fold {line['fold']}  {line['name']}: {line['images']} images, "
                        f"{line['pixels']:,} pixels"
                    )
            else:
                click.echo(f"{name}: {found}")
        for problem in problems:
            click.echo(problem, err=True)
        click.echo("fine" if not problems else f"{len(problems)} problems", err=bool(problems))
    return 1 if problems else 0


@data.command()
@click.argument("dataset")
@data_options
@click.option("--split", help="Only this split (default: all).")
@plugin_option
def index(
    dataset: str, data_root: Path | None, data_options: dict[str, str], split: str | None
) -> None:
    """Build the index of a dataset now (which image holds how many pixels of which class)."""
    from fssbench import build
    from fssbench.errors import FssbenchError

    made = build.dataset(dataset, data_root, **data_options)
    splits = made.splits if split is None else (split,)
    missing: list[FssbenchError] = []
    for name in splits:
        try:
            made.check_split(name)
            made.prepare(name)
        except FssbenchError as error:
            missing.append(error)
            if len(missing) == len(splits):
                raise missing[0] from error
            click.echo(f"{name}: {error}", err=True)
            continue
        click.echo(f"{name}: {len(made.image_ids(name))} images, {made.fingerprint(name)}")
