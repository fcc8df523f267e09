"""``fssbench train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.options import (
    data_options,
    json_option,
    pairs,
    plugin_option,
    weights_of_parts,
)

if TYPE_CHECKING:
    from fssbench.training.dry_run import DryRun
    from fssbench.training.train import TrainingResult
    from fssbench.training.training import TrainingRun


@click.command()
@click.argument("matcher")
@click.option("--stage", default="", help="What is trained; needed if there are several.")
@click.option("--dataset", default="shapes", show_default=True, help="Name of the dataset.")
@data_options
@click.option("--fold", type=int, default=0, show_default=True,
              help="The fold whose classes are novel.")  # fmt: skip
@click.option("--recipe", default="",
              help="A recipe of the matcher, or FILE.toml  [default: the dataset's].")  # fmt: skip
@click.option("--backbone", default="", help="Frozen encoder  [default: the recipe's].")
@click.option("--weights", multiple=True, callback=weights_of_parts, metavar="[PART=]W",
              help="Of the backbone: pretrained, random, or a file; or of a part that the stage "
              "names, e.g. sam=FILE.  [default: pretrained]")  # fmt: skip
@click.option("--init", type=click.Path(path_type=Path),
              help="Checkpoint to start from, e.g. of the stage before.")  # fmt: skip
@click.option("-o", "--option", "options", multiple=True, callback=pairs, metavar="KEY=VALUE",
              help="Option of the matcher; fssbench show matcher NAME lists them.")  # fmt: skip
@click.option("--epochs", type=int, help="Instead of the recipe's.")
@click.option("--steps", type=int, help="Instead of the recipe's.")
@click.option("--batch-size", type=int, help="Samples of a step, over all devices.")
@click.option("--lr", type=float, help="Learning rate, instead of the recipe's.")
@click.option("--shots", type=int, help="Supports of an episode, instead of the recipe's.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is drawn.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--devices", type=int, default=1, show_default=True,
              help="Processes, each on a device of its own; torchrun knows by itself.")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--accumulate", type=int, default=1, show_default=True,
              help="Micro-batches of a step: more of them need less memory.")  # fmt: skip
@click.option("--workers", type=int, help="Loader processes (default: one less than the cores).")
@click.option("--select-on", type=click.Choice(["base", "novel"]), default="base",
              show_default=True, help="Classes that the best checkpoint is chosen on; novel ones "
              "make boards say so.")  # fmt: skip
@click.option("--validation-episodes", type=int, default=500, show_default=True,
              help="Measured after each epoch; 0 for never.")  # fmt: skip
@click.option("--save-every", type=int, default=500, show_default=True,
              help="Steps between saves, besides the ends of epochs.")  # fmt: skip
@click.option("--keep-every", type=int, help="Steps between checkpoints that stay.")
@click.option("--resume", is_flag=True, help="Go on where this training saved last.")
@click.option("--dry-run", is_flag=True, help="One step, one validation chunk, a table; no files.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("trainings"),
              show_default=True, help="Folder for training directories.")  # fmt: skip
@json_option
@plugin_option
def train(
    matcher: str, as_json: bool, dry_run: bool, weights: dict[str, str], **settings: Any
) -> None:
    """Train a stage of MATCHER on the base classes of a fold.

    The same command with --resume goes on after an interruption, to the same weights.
    """
    from rich.console import Console

    from fssbench.training import dry_run as trying
    from fssbench.training.progress import TrainingProgress
    from fssbench.training.train import train as run_training
    from fssbench.training.training import Training

    encoder = weights.pop("", "pretrained")
    training = Training(matcher=matcher, weights=encoder, part_weights=weights, **settings)
    if dry_run:
        _print_dry_run(trying.dry_run(training), as_json)
        return
    report = TrainingProgress(Console(stderr=True))

    def observers(run: TrainingRun) -> list[object]:
        return [report]

    try:
        result = run_training(training, observers=observers)
    finally:
        report.close()
    if result.first:
        _print_result(result, as_json)


def _print_result(result: TrainingResult, as_json: bool) -> None:
    if as_json:
        files = {"last": str(result.last), "best": result.best and str(result.best)}
        click.echo(json.dumps({**files, "steps": result.steps, "miou": result.miou}, indent=2))
        return
    if result.best is not None:
        click.echo(f"Best: {result.best} (validation mIoU {result.miou:.2f})")
    click.echo(f"Last: {result.last}")


def _print_dry_run(found: DryRun, as_json: bool) -> None:
    import attrs
    from rich.console import Console
    from rich.table import Table

    if as_json:
        click.echo(json.dumps(attrs.asdict(found), indent=2))
        return
    table = Table(title="One step")
    for name in ("parameters of", "number", "learning rate"):
        table.add_column(name, justify="left" if name == "parameters of" else "right")
    for name, number, rate in found.groups:
        table.add_row(name, f"{number:,}", f"{rate:g}")
    table.add_row("matcher, not trained", f"{found.frozen:,}", "")
    table.add_row("backbone", f"{found.backbone:,}", "")
    Console().print(table)
    losses = ", ".join(f"{name} {value:.4f}" for name, value in found.losses.items())
    dropped = f", {found.dropped} images dropped by the train filter" if found.dropped else ""
    click.echo(f"Losses: {losses}")
    click.echo(f"Operations: {found.step_flops / 1e9:.2f} GFLOPs a step, forward and backward")
    click.echo(
        f"Time and memory: {found.seconds:.2f} s for this first step, "
        f"{found.peak_memory_mib:.0f} MiB peak"
    )
    click.echo(
        f"Length: {found.steps} steps, {found.epoch_steps} an epoch of {found.samples} samples"
        f"{dropped}"
    )
    if found.scores:
        click.echo("Validation: one chunk measured, fine")
