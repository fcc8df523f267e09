"""``fssbench reproduce``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.evaluate import evaluate
from fssbench.cli.options import PATH, rerun_options

if TYPE_CHECKING:
    from fssbench.evaluation.evaluation import Evaluation
    from fssbench.evaluation.reproduce import Rerun
    from fssbench.results.record import Record


@click.command()
@click.argument("record", type=PATH)
@click.option("--run", is_flag=True, help="Run the command, after a check of weights and data.")
@rerun_options
@click.option("--out", type=PATH, default=Path("reproduced"), show_default=True,
              help="Folder for run directories.")  # fmt: skip
def reproduce(record: Path, run: bool, weights: dict[str, str], out: Path, **settings: Any) -> None:
    """Print the command that evaluates RECORD again.

    RECORD is a record.json, or its folder with the rows and the manifest. Files and the options of
    the dataset are not in a record: give them here, or complete the printed command.
    """
    import attrs

    from fssbench import registry
    from fssbench.evaluation.reproduce import Rerun, evaluation_of

    rerun = Rerun(weights=weights.pop("", ""), encoder_weights=weights, **settings)
    evaluation, recorded = evaluation_of(record, rerun, check=run)
    arguments = list(_arguments(attrs.evolve(evaluation, out=out)))
    infos = registry.registry().plugins.infos
    plugins = [text for info in infos if info.source == "-p" for text in ("-p", info.name)]
    click.echo(shlex.join(["fssbench", "evaluate", *arguments, *plugins]))
    if run:
        evaluate.main(arguments, prog_name="fssbench evaluate", standalone_mode=False)
        low, high = recorded.intervals["miou"]
        score = f"mIoU {recorded.scores['miou']:.2f} [{low:.1f}, {high:.1f}]"
        click.echo(f"Recorded: {score}, {recorded.manifest.episodes} episodes")
        return
    for note in _notes(recorded, rerun):
        click.echo(f"Note: {note}", err=True)


def _arguments(evaluation: Evaluation) -> Iterator[str]:
    """Yield the arguments of ``evaluate`` that differ from their defaults."""
    from fssbench.evaluation.evaluation import Evaluation

    default = Evaluation()
    yield evaluation.matcher
    for parameter in evaluate.params:
        name = "encoder_weights" if parameter.name == "weights" else str(parameter.name)
        value = getattr(evaluation, name, None)
        if name == "encoder_weights":
            value = {"": evaluation.weights} | dict(evaluation.encoder_weights)
            value = {role: weights for role, weights in value.items() if weights != default.weights}
        elif name == "options":
            value = _changed_options(evaluation)
        elif name == "matcher" or not hasattr(default, name) or value == getattr(default, name):
            continue
        option = parameter.opts[0]
        if isinstance(value, Mapping):
            for key, each in value.items():
                yield from (option, f"{key}={_text(each)}" if key else _text(each))
        elif value is True:
            yield option
        else:
            yield from (option, _text(value))


def _changed_options(evaluation: Evaluation) -> dict[str, Any]:
    """Return the options of the matcher that are not at their defaults."""
    from fssbench import registry
    from fssbench.options import options_class, to_record
    from fssbench.specs import MatcherSpec

    config_class = options_class(registry.registry().get(MatcherSpec, evaluation.matcher))
    try:
        defaults = json.loads(json.dumps(to_record(config_class and config_class())))
    except TypeError:  # an option is required
        defaults = {}
    return {
        name: value
        for name, value in evaluation.options.items()
        if name not in defaults or defaults[name] != value
    }


def _text(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _notes(record: Record, rerun: Rerun) -> Iterator[str]:
    """Yield the inputs that the record does not contain."""
    if record.checkpoint and not rerun.checkpoint:
        yield f"--checkpoint is the file of sha256 {record.checkpoint.sha256}"
    parts = {f"{role}=": each.weights for role, each in record.encoders.items()}
    for part, weights in (parts or {"": record.weights}).items():
        in_checkpoint = record.checkpoint and record.checkpoint.sha256 == weights.sha256
        if weights.source == "file" and not in_checkpoint:
            yield f"--weights {part}{weights.name} is the file of sha256 {weights.sha256}"
    if not (rerun.data_root or rerun.data_options):
        yield "a record has no folder and no options of the dataset: add --data-root and -d"
