"""``fssbench train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.completion import names_of, recipes, stages
from fssbench.cli.config_file import config_option
from fssbench.cli.options import (
    PATH,
    cache_options,
    data_options,
    json_option,
    matcher_option,
    process_options,
    weights_of_parts,
)
from fssbench.cli.output import make_table, print_json, print_table
from fssbench.hub import file_or_address

if TYPE_CHECKING:
    from fssbench.training.dry_run import DryRun


@click.command()
@click.argument("matcher", shell_complete=names_of("matcher"))
@click.option("--stage", default="", shell_complete=stages,
              help="Stage to train; required if there are several.")  # fmt: skip
@click.option("--dataset", default="shapes", show_default=True, help="Name of the dataset.",
              shell_complete=names_of("dataset"))  # fmt: skip
@data_options
@click.option("--fold", type=int, default=0, show_default=True, help="Fold of novel classes.")
@click.option("--recipe", default="", shell_complete=recipes,
              help="Recipe of the matcher, or FILE.toml  [default: the dataset's].")  # fmt: skip
@click.option("--backbone", default="", help="Frozen encoder  [default: the recipe's].",
              shell_complete=names_of("backbone"))  # fmt: skip
@click.option("--weights", multiple=True, callback=weights_of_parts, metavar="[PART=]W",
              help="Weights of the backbone: pretrained, random, or a file; or weights of a part "
              "of the stage, e.g. sam=FILE  [default: pretrained].")  # fmt: skip
@click.option("--init", type=file_or_address, metavar="FILE|hf://…",
              help="Checkpoint to start from, e.g. of the previous stage.")  # fmt: skip
@matcher_option
@click.option("--epochs", type=int, help="Number of epochs  [default: the recipe's].")
@click.option("--steps", type=int, help="Number of steps  [default: the recipe's].")
@click.option("--batch-size", type=int, help="Samples in a step, over all devices.")
@click.option("--lr", type=float, help="Learning rate  [default: the recipe's].")
@click.option("--shots", type=int, help="Supports of an episode  [default: the recipe's].")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random draws.")
@process_options
@cache_options
@click.option("--accumulate", type=int, default=1, show_default=True,
              help="Micro-batches in a step; more of them need less memory.")  # fmt: skip
@click.option("--select-on", type=click.Choice(["base", "novel"]), default="base",
              show_default=True, help="Validation classes that select the best checkpoint; boards "
              "mark a selection on novel ones.")  # fmt: skip
@click.option("--validation-episodes", type=int, default=500, show_default=True,
              help="Validation episodes after each epoch; 0 disables validation.")  # fmt: skip
@click.option("--save-every", type=int, default=500, show_default=True,
              help="Steps between saves; the end of an epoch also saves.")  # fmt: skip
@click.option("--keep-every", type=int, help="Steps between checkpoints that are not replaced.")
@click.option("--resume", is_flag=True, help="Resume from the last save.")
@click.option("--dry-run", is_flag=True, help="One step, one validation chunk, a table; no files.")
@click.option("--out", type=PATH, default=Path("trainings"), show_default=True,
              help="Folder for training directories.")  # fmt: skip
@config_option
@json_option
def train(
    matcher: str, as_json: bool, dry_run: bool, weights: dict[str, str], **settings: Any
) -> None:
    """Train a stage of MATCHER on the base classes of a fold.

    After an interruption, the same command with --resume continues to the same weights.
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
    try:
        result = run_training(training, observers=lambda run: [report])
    finally:
        report.close()
    if not result.first:
        return
    if as_json:
        fields = ("last", "best", "steps", "miou")
        print_json({name: getattr(result, name) for name in fields}, default=str)
        return
    if result.best is not None:
        click.echo(f"Best: {result.best} (validation mIoU {result.miou:.2f})")
    click.echo(f"Last: {result.last}")


def _print_dry_run(found: DryRun, as_json: bool) -> None:
    import attrs

    if as_json:
        print_json(attrs.asdict(found))
        return
    table = make_table("parameters of", "number", "learning rate", title="One step")
    for name, number, rate in found.groups:
        table.add_row(name, f"{number:,}", f"{rate:g}")
    table.add_row("matcher, not trained", f"{found.frozen:,}", "")
    table.add_row("backbone", f"{found.backbone:,}", "")
    print_table(table)
    losses = ", ".join(f"{name} {value:.4f}" for name, value in found.losses.items())
    dropped = f", {found.dropped} images dropped by the train filter" if found.dropped else ""
    click.echo(
        f"Losses: {losses}\n"
        f"Operations: {found.step_flops / 1e9:.2f} GFLOPs a step, forward and backward\n"
        f"Time and memory: {found.seconds:.2f} s for this first step, "
        f"{found.peak_memory_mib:.0f} MiB peak\n"
        f"Length: {found.steps} steps, {found.epoch_steps} an epoch of {found.samples} samples"
        f"{dropped}"
    )
    if found.scores:
        click.echo("Validation: one chunk measured, fine")
