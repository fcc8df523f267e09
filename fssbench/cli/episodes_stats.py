"""``fssbench episodes stats``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from fssbench.cli.options import PATH, data_options, json_option, lists_option
from fssbench.cli.output import make_table, plain_console, print_json

if TYPE_CHECKING:
    from fssbench.episodes.analysis.stats import EpisodeStats, Width


@click.command()
@click.argument("manifest")
@data_options
@lists_option
@click.option("--run", "run_", type=PATH, metavar="RUN",
              help="Run directory of an evaluation of it, for interval widths.")  # fmt: skip
@click.option("--plot", type=PATH, metavar="FILE.png", help="Plot class shares and widths.")
@click.option("--mask-free", "masks_hidden", is_flag=True,
              help="Score of an oracle without support masks; reads annotations.")  # fmt: skip
@json_option
def stats(
    manifest: str, lists: Path | None, run_: Path | None, plot: Path | None, masks_hidden: bool,
    as_json: bool, **data: Any,
) -> None:  # fmt: skip
    """Show statistics of a manifest: class shares, repeats, and widths of intervals.

    MANIFEST is a manifest file, a run directory, or a setting such as
    shapes/v1-1k/fold0-1shot-seed0, whose manifest is built.
    """
    from fssbench import build as parts
    from fssbench.board.plot import check_plot
    from fssbench.cli.manifests import read_or_build
    from fssbench.episodes.analysis import stats as counted
    from fssbench.episodes.analysis.mask_free import mask_free
    from fssbench.episodes.analysis.plot import draw_stats
    from fssbench.errors import FssbenchError
    from fssbench.results.record import ROWS_FILE
    from fssbench.results.rows import read_rows

    if plot:
        check_plot(plot)
    read = read_or_build(manifest, lists=lists, **data)
    rows = None if run_ is None else read_rows(run_ / ROWS_FILE)
    found = counted.episode_stats(read)
    try:
        by_count = counted.widths(read, rows)
    except FssbenchError as error:
        raise FssbenchError(f"{run_}: {error}") from error
    oracle = None
    if masks_hidden:
        oracle = mask_free(
            read, parts.protocol_dataset(read.protocol, data["data_root"], **data["data_options"])
        )
    title = f"{read.protocol}, fold {read.fold}, {read.shots}-shot, seed {read.seed}"
    if plot:
        draw_stats(title, found, by_count, plot)
    if as_json:
        about = {
            "digest": read.digest,
            **found.to_fields(),
            "by_count": [attrs.asdict(width) for width in by_count],
            "miou": None if rows is None else counted.miou(rows),
            "mask_free": oracle and attrs.asdict(oracle),
        }
        print_json(about)
        return
    click.echo(title)
    _print_stats(found, by_count)
    if oracle is not None:
        click.echo(
            f"Without masks: {oracle.single:.1f} % of the episodes have one common class; an "
            f"oracle that predicts\nall common classes scores {oracle.miou:.2f}."
        )


def _print_stats(found: EpisodeStats, by_count: tuple[Width, ...]) -> None:
    console = plain_console()
    columns = ["class", "episodes", "share", "query images", "support images"]
    classes = make_table(*columns, title="Classes", frame=False)
    for each in found.classes:
        cells = each.name, each.episodes, f"{each.share:.1f} %", each.queries, each.supports
        classes.add_row(*map(str, cells))
    console.print(classes)
    columns = ["", "uses", "different", "uses of each", "most used"]
    repeats = make_table(*columns, title="Repeats", frame=False)
    kinds = {
        "query images": found.queries,
        "support images": found.supports,
        "query and support": found.pairs,
        "whole episodes": found.whole,
    }
    for name, one in kinds.items():
        mean = one.uses / max(one.distinct, 1)
        repeats.add_row(name, f"{one.uses}", f"{one.distinct}", f"{mean:.1f}", f"{one.most}")
    console.print(repeats)
    if found.twice:
        console.print(f"{found.twice} episodes have a repeated support image.\n")
    measured = any(width.width is not None for width in by_count)
    columns = ["episodes", "query images", "effective"]
    columns += ["width of the 95 % interval"] * measured
    counts = make_table(*columns, title="By number of episodes", frame=False)
    for width in by_count:
        if not (measured or width.stretches):
            continue
        sizes = ["" if n is None else f"{n:.0f}" for n in (width.images, width.effective)]
        if measured:
            sizes.append(f"{'' if width.stretches else 'about '}{width.width:.2f}")
        counts.add_row(f"{width.episodes:,}", *sizes)
    console.print(counts)
    if measured:
        console.print("Widths in points of mIoU. 'about': if further episodes use new images.")
