"""Every hook of fssbench.

A plugin is a module (or any object) with functions of these names. It is found through the
entry-point group ``fssbench``, or named with ``-p module`` / ``-p path/to/file.py`` / the
environment variable ``FSSBENCH_PLUGINS``. An implementation may take fewer arguments than its hook.
A function called ``fssbench_…`` is a hook implementation by its name; mark it with
`fssbench.hookimpl` only to give pluggy's options (``tryfirst``, ``wrapper``, …).
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


# --- what a plugin brings -------------------------------------------------------------------------


@hookspec
def fssbench_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Return the datasets that this plugin brings.

    Called once, before anything else is known; must import no heavy package.
    """


@hookspec
def fssbench_samplers() -> Iterable[SamplerSpec]:  # type: ignore[empty-body]
    """Return the episode samplers that this plugin brings. Called once, as `fssbench_datasets`."""


@hookspec
def fssbench_protocols() -> Iterable[ProtocolSpec]:  # type: ignore[empty-body]
    """Return the protocols that this plugin brings. Called once, as `fssbench_datasets`.

    A protocol's name is its identity: whoever changes anything about it gives it a new name.
    """


@hookspec
def fssbench_backbones() -> Iterable[BackboneSpec]:  # type: ignore[empty-body]
    """Return the backbones that this plugin brings. Called once, as `fssbench_datasets`."""


@hookspec
def fssbench_matchers() -> Iterable[MatcherSpec]:  # type: ignore[empty-body]
    """Return the matchers that this plugin brings. Called once, as `fssbench_datasets`."""


@hookspec
def fssbench_metrics() -> Iterable[MetricSpec]:  # type: ignore[empty-body]
    """Return the metrics that this plugin brings. Called once, as `fssbench_datasets`."""


@hookspec
def fssbench_commands() -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Return further verbs of the ``fssbench`` command.

    Called when a verb is not one of fssbench's own, and for ``--help``; import what a command needs
    inside of it.
    """


# --- what a plugin observes -----------------------------------------------------------------------


@hookspec
def fssbench_evaluation_started(run: Run) -> None:
    """An evaluation (one manifest, one matcher) is about to measure its first chunk.

    Args:
        run: what is evaluated, where its files are, and how many episodes are left to do.
    """


@hookspec
def fssbench_episodes_measured(
    run: Run,
    chunk: int,
    episodes: Sequence[Episode],
    rows: pandas.DataFrame,
    predictions: Sequence[Tensor],
) -> None:
    """A chunk was measured as a whole.

    Chunks are cut from the visiting order of `fssbench.episodes.chunks` (by class, query, supports
    and index), not from the order of the manifest. Several processes finish them in any order, and
    a resumed run measures only the missing ones.

    Args:
        run: the evaluation.
        chunk: number of the chunk in the visiting order, from 0.
        episodes: its episodes, in the visiting order.
        rows: one row for each of them (columns ``index, class_id, query`` and the metrics').
        predictions: one bool (H, W) tensor for each of them, at the size that was scored.
    """


@hookspec
def fssbench_evaluation_finished(run: Run, record: Record) -> None:
    """Every episode is measured and the record is written."""


@hookspec
def fssbench_training_started(run: TrainingRun) -> None:
    """A training stage is about to take its first step.

    Training hooks are called in the first process only, however many there are.

    Args:
        run: what is trained, where its files are, and how many steps were taken before.
    """


@hookspec
def fssbench_step_finished(
    run: TrainingRun, step: int, losses: Mapping[str, float], lr: float, gradient_norm: float
) -> None:
    """The optimiser took a step.

    Args:
        run: the training.
        step: how many steps were taken so far.
        losses: the step's losses by name, before the recipe's weights, and their weighted sum as
            ``total``; means over all processes and micro-batches.
        lr: learning rate of the first parameter group.
        gradient_norm: of all gradients together, before clipping.
    """


@hookspec
def fssbench_validation_finished(
    run: TrainingRun, step: int, scores: Mapping[str, float], best: bool
) -> None:
    """The matcher was measured on the validation episodes.

    Args:
        run: the training.
        step: how many steps were taken so far.
        scores: in percent, ``miou`` and the others of `fssbench.metrics.iou.IoU`.
        best: its mIoU is the highest so far.
    """


@hookspec
def fssbench_held_out_measured(run: TrainingRun, step: int, measures: Mapping[str, float]) -> None:
    """A stage that asks for it was measured on held-out images, at the end of an epoch.

    Args:
        run: the training.
        step: how many steps were taken so far.
        measures: what the stage calls its measures, means over the images.
    """


@hookspec
def fssbench_training_finished(run: TrainingRun, checkpoint: Path) -> None:
    """Training ended; `checkpoint` is the file that was written last."""
