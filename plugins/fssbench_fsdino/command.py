"""The ``fssbench analyse`` verb."""

from __future__ import annotations

import json
from pathlib import Path

import click


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--point {text}: write X,Y, e.g. 0.5,0.25") from error
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise click.UsageError(f"--point {text}: width and height are shares from 0 to 1")
    return x, y


@click.group()
def analyse() -> None:
    """Analyse encoders."""


@analyse.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--backbone", default="dinov2-b", show_default=True, help="Encoder to analyse.")
@click.option("--weights", default="pretrained", show_default=True,
              help="Weights of the encoder: pretrained, random, or a file.")  # fmt: skip
@click.option("--reference", default="sam-vit-h", show_default=True,
              help="Encoder whose last layer it is compared with.")  # fmt: skip
@click.option("--reference-weights", default="pretrained", show_default=True,
              help="Weights of the reference: pretrained, random, or a file.")  # fmt: skip
@click.option("--point", "points", multiple=True, metavar="X,Y", type=_point,
              default=["0.25,0.25", "0.75,0.25", "0.25,0.75", "0.75,0.75"], show_default=True,
              help="Point to draw maps of, as shares of width and height; repeatable.")  # fmt: skip
@click.option("--size", type=int, help="Input side of the backbone  [default: its own].")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("similarity"),
              show_default=True, help="Folder of the pictures.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def similarity(
    images: tuple[Path, ...], backbone: str, weights: str, reference: str, reference_weights: str,
    points: tuple[tuple[float, float], ...], size: int | None, device: str, out: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Draw self-similarity maps of all blocks, and rank blocks by agreement with a reference."""
    import attrs
    from rich.console import Console
    from rich.table import Table

    import fssbench
    from fssbench_fsdino.similarity import draw_similarity, layer_features, rank_layers

    where = fssbench.choose_device(device)
    pictures = {path: fssbench.read_image(path, missing="no such file") for path in images}
    encoder = fssbench.backbone(backbone, weights).to(where)
    other = fssbench.backbone(reference, reference_weights).to(where)
    last = other.info.last_layer
    features, references, written = [], [], []
    out.mkdir(parents=True, exist_ok=True)
    for number, (path, picture) in enumerate(pictures.items()):
        own = layer_features(encoder, picture, list(encoder.layers), size)
        theirs = layer_features(other, picture, [last])[last]
        sheet = draw_similarity(picture, points, {**own, other.info.name: theirs})
        written.append(out / f"{number:03d}-{path.stem}.png")
        sheet.save(written[-1])
        features.append(own)
        references.append(theirs)
    ranked = rank_layers(features, references)
    if as_json:
        about = {
            "backbone": attrs.asdict(encoder.weights) | {"backbone": encoder.info.name},
            "reference": attrs.asdict(other.weights) | {"backbone": other.info.name},
            "layers": [attrs.asdict(entry) for entry in ranked],
            "pictures": [str(path) for path in written],
        }
        click.echo(json.dumps(about, indent=2))
        return
    title = f"Agreement with {other.info.name} ({other.weights.source})"
    table = Table("layer", "mean", "least to most", title=title)
    for entry in ranked:
        ends = f"{min(entry.images):.3f} to {max(entry.images):.3f}"
        table.add_row(entry.layer, f"{entry.mean:.3f}", ends)
    Console().print(table)
    if "random" in (encoder.weights.source, other.weights.source):
        click.echo("Some weights are random: the ranking is not valid for trained encoders.")
    click.echo(f"Pictures: {out}")
