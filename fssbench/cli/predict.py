"""``fssbench predict``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.options import json_option, pairs, plugin_option
from fssbench.errors import FssbenchError

if TYPE_CHECKING:
    from fssbench.inference.picture_files import Annotated, Job, Segmented
    from fssbench.inference.predictor import Predictor


@click.command()
@click.argument("matcher", default="")
@click.option("--support", "supports", multiple=True, required=True, metavar="IMAGE:MASK",
              help="A picture and the mask of what is to be found in it; repeatable.")  # fmt: skip
@click.option("--query", type=click.Path(path_type=Path), required=True, metavar="IMAGE|FOLDER",
              help="What to segment: a picture, or all pictures of a folder.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), required=True,
              help="Folder for masks/ and overlays/.")  # fmt: skip
@click.option("--backbone", default="",
              help="Frozen encoder  [default: the checkpoint's, or tiny-resnet].")  # fmt: skip
@click.option("--weights", default="pretrained", show_default=True,
              help="Of the backbone: pretrained, random, or a file.")  # fmt: skip
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Trained matcher; "
              "brings its name, options and backbone along.")  # fmt: skip
@click.option("-o", "--option", "options", multiple=True, callback=pairs, metavar="KEY=VALUE",
              help="Option of the matcher; fssbench show matcher NAME lists them.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--force", is_flag=True, help="Replace masks and overlays that are there already.")
@json_option
@plugin_option
def predict(
    matcher: str, supports: tuple[str, ...], query: Path, out: Path, backbone: str, weights: str,
    checkpoint: Path | None, options: dict[str, Any], device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Segment your own pictures with MATCHER, after a few of them with masks.

    Without MATCHER: the checkpoint's, or the baseline, which needs no training.
    """
    from fssbench.inference.picture_files import (
        make_folders,
        parse_support,
        plan_jobs,
        read_supports,
    )
    from fssbench.inference.predictor import Predictor

    annotated = [parse_support(text) for text in supports]
    given = [path for pair in annotated for path in (pair.image, pair.mask)]
    jobs = plan_jobs(query, out, given, force=force)
    images, masks = read_supports(annotated)
    predictor = Predictor(
        matcher, backbone, weights, checkpoint=checkpoint, device=device, **options
    )
    predictor.set_support(images, masks)
    make_folders(jobs)
    failures: list[FssbenchError] = []
    found = _segment(predictor, jobs, failures)
    if as_json:
        _print_json(predictor, checkpoint, annotated, found)
    else:
        for each in found:
            share = 100 * each.foreground / (each.width * each.height)
            click.echo(f"{each.job.mask}: {each.width}x{each.height}, {share:.1f} % foreground")
        if found:
            click.echo(f"Overlays: {found[0].job.overlay.parent}")
    if failures:
        others = f" (pictures that failed: {len(failures)} of {len(jobs)}; the others are written)"
        raise FssbenchError(f"{failures[0]}{others if len(jobs) > 1 else ''}")


def _segment(
    predictor: Predictor, jobs: Sequence[Job], failures: list[FssbenchError]
) -> list[Segmented]:
    """Segment the images, with a progress bar on a terminal, else a line every ten seconds."""
    import time

    from rich.console import Console
    from rich.progress import track

    from fssbench.evaluation.progress import LINES_EVERY
    from fssbench.inference.picture_files import segment_pictures

    console = Console(stderr=True)
    found = []
    spoken = time.monotonic()
    shown = track(
        segment_pictures(predictor, jobs, failures.append), "pictures", total=len(jobs),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    for each in shown:
        found.append(each)
        if not console.is_terminal and time.monotonic() - spoken > LINES_EVERY:
            spoken = time.monotonic()
            click.echo(f"{len(found) + len(failures)}/{len(jobs)} pictures", err=True)
    return found


def _print_json(
    predictor: Predictor,
    checkpoint: Path | None,
    supports: Sequence[Annotated],
    found: Sequence[Segmented],
) -> None:
    import attrs

    backbone = predictor.pipeline.backbone
    output = {
        "matcher": predictor.matcher,
        "backbone": backbone.info.name,
        "weights": attrs.asdict(backbone.weights),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "supports": [{"image": str(s.image), "mask": str(s.mask)} for s in supports],
        "predictions": [
            {
                "query": str(each.job.query),
                "mask": str(each.job.mask),
                "overlay": str(each.job.overlay),
                "width": each.width,
                "height": each.height,
                "foreground_pixels": each.foreground,
            }
            for each in found
        ],
    }
    click.echo(json.dumps(output, indent=2))
