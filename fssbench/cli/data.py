"""``fssbench data``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from fssbench.cli.options import data_options, json_option, plugin_option

if TYPE_CHECKING:
    from fssbench.data.check import SplitCount


@click.group()
def data() -> None:
    """Make datasets of official archives, and look at them."""


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
    """Open every image and mask, and count classes, beside the known counts.

    Exit code 1 when something is wrong. A part of a dataset is not wrong: what it lacks is named.
    """
    from rich.console import Console
    from rich.progress import track

    from fssbench import build
    from fssbench.data.check import check_image, count_split
    from fssbench.errors import FssbenchError

    made = build.dataset(dataset, data_root, **data_options)
    report: dict[str, SplitCount | None] = {}
    problems: list[str] = []
    missing: dict[str, FssbenchError] = {}
    for name in made.splits if split is None else (split,):
        try:
            made.check_split(name)
            ids = made.image_ids(name)
        except FssbenchError as error:
            missing[name] = error
            continue
        wrong: list[str] = []
        for image_id in track(
            ids, f"{name}: opening", console=Console(stderr=True), transient=True
        ):
            wrong += check_image(made, image_id)
        problems += wrong
        report[name] = None if wrong else count_split(made, name)
    if missing and not report:
        raise next(iter(missing.values()))
    if as_json:
        splits: dict[str, object] = {
            name: found.to_fields() if found else "has problems" for name, found in report.items()
        }
        splits |= {name: {"not_there": str(reason)} for name, reason in missing.items()}
        click.echo(json.dumps({"splits": splits, "problems": problems}, indent=2))
        return 1 if problems else 0
    for name, found in report.items():
        if found:
            _print_split(name, found)
    for name, reason in missing.items():
        click.echo(f"{name}: not there: {reason}")
    for problem in problems:
        click.echo(problem, err=True)
    click.echo("fine" if not problems else f"{len(problems)} problems", err=bool(problems))
    return 1 if problems else 0


def _print_split(name: str, found: SplitCount) -> None:
    official = "" if found.official is None else f" of {found.official:,}"
    click.echo(f"{name}: {found.images:,}{official} images")
    for line in found.classes:
        images = f"{line.images}"
        beside = ""
        if line.official is not None and found.official_pixels == 1:
            images += f" of {line.official}"
        elif line.official is not None:
            beside = f"; {line.counted} of {line.official} with {found.official_pixels} pixels"
        click.echo(
            f"  fold {line.fold}  {line.name}: {images} images, {line.pixels:,} pixels{beside}"
        )
    for fold in found.folds if len(found.folds) > 1 else ():
        beside = "" if fold.official is None else f" of {fold.official:,}"
        click.echo(
            f"  fold {fold.fold} in all: {fold.images:,} images, {fold.classes} classes, "
            f"{fold.pairs:,}{beside} (image, class) pairs"
        )
    for lack in found.missing:
        click.echo(f"  missing for the whole dataset: {lack}")


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


@data.command()
@click.argument("dataset")
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="Folder to lay the dataset out in.")  # fmt: skip
@click.option("--from", "given", type=click.Path(path_type=Path), multiple=True, metavar="ARCHIVE",
              help="Official archive that is there already; repeatable.")  # fmt: skip
@click.option("--download", is_flag=True, help="Download the archives that are not given.")
@click.option("--year", type=click.Choice(["2014", "2017"]), default="2014", show_default=True,
              help="Of COCO.")  # fmt: skip
@json_option
@plugin_option
def prepare(
    dataset: str, to: Path, given: tuple[Path, ...], download: bool, year: str, as_json: bool
) -> None:
    """Make pascal5i, coco20i or fss1000 from its official archives, as fssbench reads it.

    May be stopped at any moment; the same command goes on.
    """
    from fssbench.cli.prepare_progress import Bars
    from fssbench.data.prepare.prepare import find_recipe
    from fssbench.data.prepare.prepare import prepare as make

    recipe = find_recipe(dataset, year)
    with Bars() as bars:
        made = make(recipe, to, given=given, fetch=download, told=bars)
    if as_json:
        about = {
            "dataset": recipe.name, "data_root": str(made.data_root), "already": made.already,
            "counts": dict(made.marker.counts), "official": dict(recipe.official),
            "archives": {key: attrs.asdict(s) for key, s in made.marker.sources.items()},
            "downloads": [str(path) for path in made.downloads],
        }  # fmt: skip
        click.echo(json.dumps(about, indent=2))
        return
    for name, count in made.marker.counts.items():
        official = recipe.official.get(name)
        note = "" if official in (None, count) else f"  (the whole dataset has {official:,})"
        click.echo(f"{name}: {count:,}{note}")
    for path in made.downloads:
        click.echo(f"{path} is not needed any more; remove it if you like")
    done = "was there already" if made.already else "is ready"
    known = recipe.name.partition("-")[0]
    click.echo(f"{recipe.name} {done}: fssbench data check {known} --data-root {made.data_root}")
