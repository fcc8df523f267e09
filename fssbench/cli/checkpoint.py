"""``fssbench checkpoint``."""

from __future__ import annotations

from pathlib import Path

import click

from fssbench.cli.completion import names_of
from fssbench.cli.options import PATH, matcher_option, pairs


@click.group()
def checkpoint() -> None:
    """Import and share trained weights of matchers."""


@checkpoint.command("import")
@click.argument("matcher", shell_complete=names_of("matcher"))
@click.argument("file", type=PATH)
@click.option(
    "--backbone",
    default="",
    shell_complete=names_of("backbone"),
    help="Encoder that the file was trained with; required unless the matcher takes whole images.",
)
@click.option("--encoder", "encoders", multiple=True, callback=pairs, metavar="ROLE=NAME",
              shell_complete=names_of("backbone"),
              help="Encoder of a matcher on whole images  [default: the matcher's].")  # fmt: skip
@click.option("--out", type=PATH, required=True,
              help="Checkpoint to write, e.g. dcama.safetensors.")  # fmt: skip
@matcher_option
@click.option("--dataset", shell_complete=names_of("dataset"),
              help="Dataset that it was trained on, e.g. pascal5i.")  # fmt: skip
@click.option("--fold", type=int, help="Fold whose classes were novel in its training.")
def import_(
    matcher: str, file: Path, backbone: str, encoders: dict[str, str], out: Path,
    options: dict[str, str], dataset: str | None, fold: int | None,
) -> None:  # fmt: skip
    """Convert FILE, a checkpoint of MATCHER's authors, to a checkpoint of fssbench.

    Tensors are matched by name and shape; nothing in the file is executed. With --dataset and
    --fold, an evaluation on classes that it was trained on is refused.
    """
    from fssbench.importing import import_checkpoint

    header = {"dataset": dataset, "fold": fold}
    complete = import_checkpoint(
        file,
        out,
        matcher=matcher,
        backbone=backbone,
        encoders=encoders,
        options=options,
        header=header,
    )
    encoder = f" on {backbone}" if backbone else ""
    weights = "with" if complete else "without"
    click.echo(f"{out}: {matcher}{encoder}, {weights} the backbone's weights")


@checkpoint.command()
@click.argument("file", type=PATH)
@click.option("--to", required=True, metavar="hf://USER/NAME",
              help="Repository on the Hugging Face hub, created if there is none.")  # fmt: skip
@click.option("--record", "records", multiple=True, type=PATH,
              help="Record of this checkpoint, whose scores the card prints.")  # fmt: skip
@click.option("--licence", default="", metavar="ID",
              help="Licence of the weights, e.g. apache-2.0  [default: not stated].")  # fmt: skip
def push(file: Path, to: str, records: tuple[Path, ...], licence: str) -> None:
    """Upload FILE, a checkpoint, with a model card made from its header.

    The access token is that of `hf auth login`, or HF_TOKEN. The card of a repository has one
    section for each of its checkpoints.
    """
    from fssbench.sharing import push_checkpoint

    click.echo(push_checkpoint(file, to, records=records, licence=licence))


@checkpoint.command()
@click.argument("address", metavar="hf://USER/NAME/FILE[@REVISION]")
@click.option("--out", type=PATH, help="File to write  [default: FILE's name].")
def pull(address: str, out: Path | None) -> None:
    """Download a checkpoint from the Hugging Face hub and check it."""
    from fssbench.sharing import pull_checkpoint

    path, found = pull_checkpoint(address, out)
    header = found.header
    click.echo(f"{path}: {header['matcher']} on {header['backbone']}, {found.address}")
