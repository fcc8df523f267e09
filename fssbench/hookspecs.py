"""Every hook of fssbench.

A plugin is a module (or any object) with functions of these names. It is loaded from the
entry-point group ``fssbench``, ``-p module``, ``-p path/to/file.py``, or the environment variable
``FSSBENCH_PLUGINS``. An implementation may take fewer arguments than its hook. A function
called ``fssbench_…`` is a hook implementation by its name; the marker `fssbench.hookimpl` is only
needed for pluggy's options (``tryfirst``, ``wrapper``, …).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    import click
    import pandas
    from torch import Tensor

    from fssbench.episodes.episode import Episode
    from fssbench.evaluation.run import Run
    from fssbench.results.record import Record
    from fssbench.specs import (
        BackboneSpec,
        DatasetSpec,
        MatcherSpec,
        MetricSpec,
        ProtocolSpec,
        SamplerSpec,
    )
    from fssbench.training.training import TrainingRun

hookspec = pluggy.HookspecMarker("fssbench")
hookimpl = pluggy.HookimplMarker("fssbench")


# --- registration ---------------------------------------------------------------------------------


@hookspec
def fssbench_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the datasets of this plugin.

    Called once, when the registry is created; must not import heavy packages.
    """


@hookspec
def fssbench_samplers() -> Iterable[SamplerSpec]:  # type: ignore[empty-body]
    """Return the samplers of this plugin. Called once, like `fssbench_datasets`."""


@hookspec
def fssbench_protocols() -> Iterable[ProtocolSpec]:  # type: ignore[empty-body]
    """Return the protocols of this plugin. Called once, like `fssbench_datasets`.

    A protocol's name is its identity: a changed protocol must have a new name.
    """


@hookspec
def fssbench_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Return the backbones of this plugin. Called once, like `fssbench_datasets`."""


@hookspec
def fssbench_matchers() -> Iterable[MatcherSpec]:  # type: ignore[empty-body]
    """Return the matchers of this plugin. Called once, like `fssbench_datasets`."""


@hookspec
def fssbench_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Return the metrics of this plugin. Called once, like `fssbench_datasets`."""


@hookspec
def fssbench_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return further verbs of the ``fssbench`` command.

    Called for a verb that is not one of fssbench's own, and for ``--help``; a command should import
    its dependencies when it runs.
    """


# --- observation ----------------------------------------------------------------------------------


@hookspec
def fssbench_evaluation_started(run: Run) -> None:
    """An evaluation (one manifest, one matcher) is about to measure its first chunk.

    Args:
        run: the evaluation, with its folder and the number of finished episodes.
    """


@hookspec
def fssbench_episodes_measured(
    run: Run,
    chunk: int,
    episodes: Sequence[Episode],
    rows: pandas.DataFrame,
    predictions: Sequence[Tensor],
) -> None:
    """All episodes of a chunk were measured.

    Chunks are consecutive in the visiting order of `fssbench.episodes.chunks` (by class, query,
    supports and index), not in the order of the manifest. Several processes finish them in any
    order, and a resumed run measures only the missing ones.

    Args:
        run: the evaluation.
        chunk: number of the chunk in the visiting order, from 0.
        episodes: its episodes, in the visiting order.
        rows: one row for each of them (columns ``index, class_id, query`` and the metrics'), or for
            each of their ways (also with the column ``way``, from 1).
        predictions: one bool (H, W) tensor for each of them, at the scored size; of several ways
            uint8 label maps, 0 for background.
    """


@hookspec
def fssbench_evaluation_finished(run: Run, record: Record) -> None:
    """All episodes were measured, and the record was written."""


@hookspec
def fssbench_training_started(run: TrainingRun) -> None:
    """A training stage is about to take its first step.

    With several processes, training hooks are called in the first one only.

    Args:
        run: the training, with its folder and the number of finished steps.
    """


@hookspec
def fssbench_step_finished(
    run: TrainingRun, step: int, losses: Mapping[str, float], lr: float, gradient_norm: float,
    waited: float,
) -> None:  # fmt: skip
    """The optimiser took a step.

    Args:
        run: the training.
        step: number of steps so far.
        losses: the step's losses by name, before the recipe's weights, and their weighted sum as
            ``total``; means over all processes and micro-batches.
        lr: learning rate of the first parameter group.
        gradient_norm: norm of all gradients together, before clipping.
        waited: seconds in which the first process waited for the loaded samples of the step.
    """


@hookspec
def fssbench_validation_finished(
    run: TrainingRun, step: int, scores: Mapping[str, float], best: bool
) -> None:
    """The matcher was measured on the validation episodes.

    Args:
        run: the training.
        step: number of steps so far.
        scores: scores in percent, ``miou`` and the others of `fssbench.metrics.iou.IoU`.
        best: True if the mIoU is the highest so far.
    """


@hookspec
def fssbench_held_out_measured(run: TrainingRun, step: int, measures: Mapping[str, float]) -> None:
    """A stage with held-out images was measured on them, at the end of an epoch.

    Args:
        run: the training.
        step: number of steps so far.
        measures: measures of the stage by name, means over the images.
    """


@hookspec
def fssbench_training_finished(run: TrainingRun, checkpoint: Path) -> None:
    """Training ended; `checkpoint` is the last file that was written."""
