"""``fssbench data``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from fssbench.cli.completion import names_of
from fssbench.cli.options import PATH, data_options, json_option
from fssbench.cli.output import print_json, report_problems
from fssbench.errors import without_warnings

if TYPE_CHECKING:
    from fssbench.data.check import SplitCount
    from fssbench.data.dataset import Dataset
    from fssbench.errors import FssbenchError

_INDEXES = ("fssbench.data.index", "fssbench.data.coco_instances")
"""Loggers that warn about problems which a check lists at its end."""

split_option = click.option("--split", help="Only this split  [default: all].")


@click.group()
def data() -> None:
    """Prepare datasets from official archives, and check them."""


@data.command()
@click.argument("dataset", shell_complete=names_of("dataset"))
@data_options
@split_option
@json_option
def check(
    dataset: str, data_root: Path | None, data_options: dict[str, str], split: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Open every image and mask, and count classes, beside the known counts.

    Exit code 1 if there are problems. An incomplete dataset is not a problem; missing files are
    listed. For your own data (coco-json, labels), suspicious facts are listed too.
    """
    from rich.console import Console
    from rich.progress import track

    from fssbench import build
    from fssbench.data.check import check_image, count_split, sizes, suspicions

    made = build.dataset(dataset, data_root, **data_options)
    there, missing = _splits(made, split, made.image_ids)
    splits: dict[str, object] = {}
    problems: list[str] = []
    # Splits may have images in common; an image is opened once.
    checked: dict[str, list[str]] = {}
    for name in there:
        ids = track(
            made.image_ids(name), f"{name}: opening", console=Console(stderr=True), transient=True
        )
        for image_id in ids:
            if image_id not in checked:
                checked[image_id] = check_image(made, image_id)
        wrong = [problem for image_id in made.image_ids(name) for problem in checked[image_id]]
        problems += [*wrong, *made.problems(name)]
        with without_warnings(*_INDEXES):
            found = None if wrong else count_split(made, name)
        splits[name] = found.to_fields() if found else "has problems"
        if found and not as_json:
            _print_split(name, found)
            if found.images:
                click.echo(f"  sizes in pixels: {sizes(made, name)}")
    problems = list(dict.fromkeys(problems))
    counted = [name for name in there if splits[name] != "has problems"]
    suspicious = suspicions(made, counted)
    if as_json:
        splits |= {name: {"not_there": str(reason)} for name, reason in missing.items()}
        print_json({"splits": splits, "problems": problems, "suspicious": suspicious})
        return 1 if problems else 0
    for name, reason in missing.items():
        click.echo(f"{name}: not there: {reason}")
    for line in suspicious:
        click.echo(f"suspicious: {line}")
    return report_problems(problems)


def _splits(
    dataset: Dataset, wanted: str | None, read: Callable[[str], object]
) -> tuple[list[str], dict[str, FssbenchError]]:
    """Return the wanted splits that `read` can read, and the errors of the others.

    Raises:
        FssbenchError: no split can be read.
    """
    from fssbench.errors import FssbenchError

    found: list[str] = []
    missing: dict[str, FssbenchError] = {}
    for name in dataset.splits if wanted is None else (wanted,):
        try:
            dataset.check_split(name)
            read(name)
            found.append(name)
        except FssbenchError as error:
            missing[name] = error
    if missing and not found:
        raise next(iter(missing.values()))
    return found, missing


def _print_split(name: str, found: SplitCount) -> None:
    official = "" if found.official is None else f" of {found.official:,}"
    click.echo(f"{name}: {found.images:,}{official} images")
    for line in found.classes:
        of = beside = ""
        if line.official is not None and found.official_pixels == 1:
            of = f" of {line.official}"
        elif line.official is not None:
            beside = f"; {line.counted} of {line.official} with {found.official_pixels} pixels"
        images = f"{line.images}{of} images, {line.pixels:,} pixels{beside}"
        click.echo(f"  fold {line.fold}  {line.name}: {images}")
    for fold in found.folds if len(found.folds) > 1 else ():
        beside = "" if fold.official is None else f" of {fold.official:,}"
        click.echo(
            f"  fold {fold.fold} in all: {fold.images:,} images, {fold.classes} classes, "
            f"{fold.pairs:,}{beside} (image, class) pairs"
        )
    for lack in found.missing:
        click.echo(f"  missing for the whole dataset: {lack}")


@data.command()
@click.argument("dataset", shell_complete=names_of("dataset"))
@data_options
@split_option
def index(
    dataset: str, data_root: Path | None, data_options: dict[str, str], split: str | None
) -> None:
    """Build the index of a dataset: the number of pixels of each class in each image."""
    from fssbench import build

    made = build.dataset(dataset, data_root, **data_options)
    there, missing = _splits(made, split, made.prepare)
    for name in there:
        click.echo(f"{name}: {len(made.image_ids(name))} images, {made.fingerprint(name)}")
    for name, reason in missing.items():
        click.echo(f"{name}: {reason}", err=True)


@data.command()
@click.argument("dataset", shell_complete=names_of("dataset"))
@click.option("--to", type=PATH, required=True, metavar="FOLDER",
              help="Folder to write the dataset to.")  # fmt: skip
@click.option("--from", "given", type=PATH, multiple=True, metavar="ARCHIVE",
              help="Official archive that is already downloaded; repeatable.")  # fmt: skip
@click.option("--download", is_flag=True, help="Download the archives that are not given.")
@click.option("--year", type=click.Choice(["2014", "2017"]), default="2014", show_default=True,
              help="Release of COCO.")  # fmt: skip
@json_option
def prepare(
    dataset: str, to: Path, given: tuple[Path, ...], download: bool, year: str, as_json: bool
) -> None:
    """Write a dataset in fssbench's layout, from its official archives.

    After an interruption, the same command resumes.
    """
    from fssbench.cli.prepare_progress import Bars
    from fssbench.data.prepare import prepare as preparing
    from fssbench.data.prepare.recipes import find_recipe

    recipe = find_recipe(dataset, year)
    with Bars() as bars:
        made = preparing.prepare(recipe, to, given=given, fetch=download, observer=bars)
    if as_json:
        print_json({
            "dataset": recipe.name, "data_root": str(made.data_root), "already": made.already,
            "counts": dict(made.marker.counts), "official": dict(recipe.official),
            "archives": {key: attrs.asdict(s) for key, s in made.marker.sources.items()},
            "downloads": [str(path) for path in made.downloads],
        })  # fmt: skip
        return
    for name, count in made.marker.counts.items():
        official = recipe.official.get(name)
        note = "" if official in (None, count) else f"  (the whole dataset has {official:,})"
        click.echo(f"{name}: {count:,}{note}")
    for path in made.downloads:
        click.echo(f"{path} is no longer needed and may be removed")
    done = "was there already" if made.already else "is ready"
    check = f"fssbench data check {recipe.dataset} --data-root {made.data_root}"
    click.echo(f"{recipe.name} {done}: {check}")
