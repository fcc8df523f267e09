"""``fssbench record``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fssbench.cli.completion import names_of
from fssbench.cli.options import PATH, data_options, lists_option, names, option_of


@click.group()
def record() -> None:
    """Make records from the predictions of other programs."""


@record.command("import")
@click.argument("episodes")
@click.option("--masks", type=PATH, required=True,
              help="Folder of PNG masks named by the episode, or file of run lengths.")  # fmt: skip
@click.option("--name", required=True, help="Name of the method, e.g. my-method.")
@click.option("--backbone", default="unknown", show_default=True, help="Name of its encoder.")
@click.option("--parameters", type=click.IntRange(min=0), help="Its learnable parameters.")
@option_of("the method, to be written into the record")
@click.option("--metric", "metrics", default="iou", show_default=True, callback=names,
              metavar="NAMES", shell_complete=names_of("metric"),
              help="Metrics to measure, in addition to iou.")  # fmt: skip
@data_options
@lists_option
@click.option("--out", type=PATH, required=True, help="Folder of the result.")
def import_(
    episodes: str, masks: Path, name: str, backbone: str, parameters: int | None,
    options: dict[str, str], metrics: tuple[str, ...], out: Path, **dataset: Any,
) -> None:  # fmt: skip
    """Score the masks that another program predicted for EPISODES.

    EPISODES is a manifest file, a run directory, or a setting such as
    shapes/v1-1k/fold0-1shot-seed0. The record's provenance is "imported": boards mark it, and
    nobody can verify how the masks were computed.
    """
    from fssbench.cli.manifests import read_with_dataset
    from fssbench.evaluation.import_masks import Method, import_masks

    method = Method(matcher=name, backbone=backbone, config=dict(options), parameters=parameters)
    manifest, data = read_with_dataset(episodes, **dataset)
    made = import_masks(masks, manifest, data, method, out, metrics=metrics)
    low, high = made.intervals["miou"]
    click.echo(
        f"{name}, {made.protocol}, fold {made.fold}, {made.shots}-shot: mIoU "
        f"{made.scores['miou']:.2f} [{low:.1f}, {high:.1f}], {made.manifest.episodes} episodes"
    )
    click.echo(f"Record:  {out}")
