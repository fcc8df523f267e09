"""``fssbench predict``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.completion import names_of
from fssbench.cli.options import PATH, device_option, json_option, method_options
from fssbench.cli.output import print_json
from fssbench.errors import FssbenchError

if TYPE_CHECKING:
    from fssbench.data.masks import Foreground
    from fssbench.inference.image_pipeline import ImagePipeline
    from fssbench.inference.picture_files import PictureFiles, Segmented
    from fssbench.inference.pipeline import Pipeline
    from fssbench.inference.predictor import Predictor


@click.command()
@click.argument("matcher", default="", shell_complete=names_of("matcher"))
@click.option("--support", "supports", multiple=True, required=True, metavar="IMAGE:MASK",
              help="Image and mask of the object to find; repeatable.")  # fmt: skip
@click.option("--query", type=PATH, required=True, metavar="IMAGE|FOLDER",
              help="Image to segment, or a folder of images.")  # fmt: skip
@click.option("--out", type=PATH, required=True, help="Folder for masks/ and overlays/.")
@click.option("--foreground", default="auto", show_default=True,
              type=click.Choice(["auto", "labels", "nonblack", "bright", "alpha"]),
              help="Foreground of the masks; auto is the rule of docs/masks.md.")  # fmt: skip
@method_options
@click.option("--class-name", metavar="TEXT",
              help="Name of the object, for a matcher that takes class names.")  # fmt: skip
@device_option
@click.option("--force", is_flag=True, help="Replace existing masks and overlays.")
@json_option
def predict(
    matcher: str, supports: tuple[str, ...], query: Path, out: Path, foreground: Foreground,
    backbone: str, encoders: dict[str, str], weights: dict[str, str], checkpoint: str | Path | None,
    options: dict[str, Any], class_name: str | None, device: str, force: bool, as_json: bool,
) -> None:  # fmt: skip
    """Segment images with MATCHER, given a few images with masks.

    Without MATCHER: the checkpoint's, or the baseline, which needs no training.
    """
    import attrs

    from fssbench.inference import picture_files
    from fssbench.inference.predictor import Predictor

    annotated = [picture_files.parse_support(text) for text in supports]
    given = [path for pair in annotated for path in (pair.image, pair.mask)]
    pictures = picture_files.plan_pictures(query, out, given, force=force)
    images, masks = picture_files.read_supports(annotated, foreground)
    predictor = Predictor(
        matcher,
        backbone,
        weights.pop("", "pretrained"),
        checkpoint=checkpoint,
        encoders=encoders,
        encoder_weights=weights,
        device=device,
        **options,
    )
    predictor.set_support(images, masks, class_name=class_name)
    picture_files.make_folders(pictures)
    failures: list[FssbenchError] = []
    found = _segment(predictor, pictures, failures)
    if as_json:
        pipeline = predictor.pipeline
        about = {
            "matcher": predictor.matcher,
            "backbone": predictor.backbone,
            "weights": attrs.asdict(pipeline.weights),
            **_encoders(pipeline),
            "checkpoint": checkpoint,
            "supports": [attrs.asdict(each) for each in annotated],
            "predictions": [
                {
                    **attrs.asdict(each.files), "width": each.width, "height": each.height,
                    "foreground_pixels": each.foreground,
                }
                for each in found
            ],
        }  # fmt: skip
        print_json(about, default=str)
    else:
        for each in found:
            share = 100 * each.foreground / (each.width * each.height)
            click.echo(f"{each.files.mask}: {each.width}x{each.height}, {share:.1f} % foreground")
        if found:
            click.echo(f"Overlays: {found[0].files.overlay.parent}")
    if failures:
        count = (
            f" (pictures that failed: {len(failures)} of {len(pictures)}; the others are written)"
        )
        raise FssbenchError(f"{failures[0]}{count * (len(pictures) > 1)}")


def _encoders(pipeline: Pipeline | ImagePipeline) -> dict[str, Any]:
    import attrs

    encoders = getattr(pipeline, "encoders", {})
    named = {
        role: {"name": encoder.name, "weights": attrs.asdict(encoder.weights)}
        for role, encoder in encoders.items()
    }
    return {"encoders": named} if named else {}


def _segment(
    predictor: Predictor, pictures: Sequence[PictureFiles], failures: list[FssbenchError]
) -> list[Segmented]:
    """Segment the images, with a progress bar on a terminal, else a line every ten seconds."""
    import time

    from rich.console import Console
    from rich.progress import track

    from fssbench.evaluation.progress import LINES_EVERY
    from fssbench.inference.picture_files import segment_pictures

    console = Console(stderr=True)
    found = []
    printed = time.monotonic()
    shown: Iterable[Segmented] = segment_pictures(predictor, pictures, failures.append)
    if console.is_terminal:
        shown = track(shown, "pictures", total=len(pictures), console=console, transient=True)
    for each in shown:
        found.append(each)
        if not console.is_terminal and time.monotonic() - printed > LINES_EVERY:
            printed = time.monotonic()
            click.echo(f"{len(found) + len(failures)}/{len(pictures)} pictures", err=True)
    return found
