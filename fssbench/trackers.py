"""Observers that send evaluations and trainings to Weights & Biases, MLflow or trackio.

``FSSBENCH_TRACKERS`` names the trackers, separated by commas; their packages are imported when a
run starts. A resumed run continues the tracker's run, whose id is in a file of the run directory.
"""

from __future__ import annotations

import atexit
import importlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fssbench.errors import FssbenchError, near, one_line

if TYPE_CHECKING:
    from fssbench.episodes.episode import Episode
    from fssbench.evaluation.run import Run
    from fssbench.results.record import Record
    from fssbench.training.training import TrainingRun

VARIABLE = "FSSBENCH_TRACKERS"
PROJECT_VARIABLE = "FSSBENCH_PROJECT"
"""Name of the project, or of MLflow's experiment; ``fssbench`` by default."""


class Tracked(Protocol):
    """A run of a tracker.

    Attributes:
        id: identifier for resuming.
    """

    id: str

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Add values of a step."""

    def finish(self, *, complete: bool) -> None:
        """End the run."""


class _Wandb:
    def __init__(self, project: str, name: str, config: dict[str, Any], known: str) -> None:
        wandb = _package("wandb")
        resume = {"id": known, "resume": "allow"} if known else {}
        self._run = wandb.init(
            project=project, name=name, config=config, reinit="create_new", **resume
        )
        self.id = str(self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, complete: bool) -> None:
        self._run.finish(exit_code=0 if complete else 1)


class _Mlflow:
    def __init__(self, project: str, name: str, config: dict[str, Any], known: str) -> None:
        self._client = _package("mlflow").MlflowClient()
        self.id = known
        if known:
            self._client.update_run(known, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(project)
        self.id = str(self._client.create_run(number, run_name=name).info.run_id)
        for key, value in config.items():
            self._client.log_param(self.id, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._client.log_metric(self.id, key, value, step=step)

    def finish(self, *, complete: bool) -> None:
        self._client.set_terminated(self.id, status="FINISHED" if complete else "FAILED")


class _Trackio:
    def __init__(self, project: str, name: str, config: dict[str, Any], known: str) -> None:
        self._run = _package("trackio").init(
            # A run is continued by its name, so the name must be its own.
            project=project, name=known or f"{name}-{uuid.uuid4().hex[:6]}", config=config,
            resume="allow" if known else "never",
        )  # fmt: skip
        self.id = str(self._run.name)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, *, complete: bool) -> None:
        self._run.finish()


_TRACKERS: dict[str, Callable[[str, str, dict[str, Any], str], Tracked]] = {
    "wandb": _Wandb,
    "mlflow": _Mlflow,
    "trackio": _Trackio,
}
_open: dict[Path, list[Tracked]] = {}
_logger = logging.getLogger(__name__)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FssbenchError(
            f"{VARIABLE}: {name} is not installed: pip install 'fssbench[{name}]'"
        ) from error


def _start(run: Run | TrainingRun, config: dict[str, Any]) -> None:
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        if name not in _TRACKERS:
            raise FssbenchError(
                f"{VARIABLE}: no tracker is called {name!r}; {near(name, _TRACKERS)}"
                f"trackers: {', '.join(_TRACKERS)}"
            )
    title = f"{run.folder.parent.name}/{run.folder.name}"
    project = os.environ.get(PROJECT_VARIABLE) or "fssbench"
    for name in names:
        file = run.folder / f"{name}.txt"
        known = file.read_text().strip() if run.done and file.exists() else ""
        try:
            tracked = _TRACKERS[name](project, title, {**config, **_options(run.folder)}, known)
        except FssbenchError:
            raise
        except Exception as error:  # no key, no server, a wrong variable: classes of the tracker
            how = f"continue run {known}" if known else "start a run"
            remedy = f"; or remove {file} to start another run" if known else ""
            raise FssbenchError(
                f"{VARIABLE}: {name} cannot {how}: {one_line(error)[:300]}; check the variables of "
                f"{name}, or unset {VARIABLE}{remedy}"
            ) from error
        file.write_text(f"{tracked.id}\n")
        _open.setdefault(run.folder, []).append(tracked)


def _options(folder: Path) -> dict[str, Any]:
    """Return the matcher's options, under the names of `fssbench.load_records`."""
    for name in ("run.json", "training.json"):
        if (folder / name).exists():
            options = json.loads((folder / name).read_text(encoding="utf-8")).get("config") or {}
            return {f"option.{key}": value for key, value in options.items()}
    return {}


def _log(run: Run | TrainingRun, prefix: str, values: Mapping[str, Any], step: int) -> None:
    numbers = {f"{prefix}{key}": float(value) for key, value in values.items()}
    _each(run.folder, lambda tracked: tracked.log(numbers, step))


def _finish(folder: Path, *, complete: bool) -> None:
    _each(folder, lambda tracked: tracked.finish(complete=complete))
    _open.pop(folder, None)


def _each(folder: Path, call: Callable[[Tracked], None]) -> None:
    """Call each tracker; one that fails gets no more calls, and the run continues without it."""
    for tracked in list(_open.get(folder, ())):
        try:
            call(tracked)
        except Exception as error:
            _open[folder].remove(tracked)
            _logger.warning(
                "%s: run %s is incomplete from here on: %s",
                VARIABLE, tracked.id, one_line(error)[:300],
            )  # fmt: skip


@atexit.register
def _finish_interrupted() -> None:
    for folder in list(_open):
        _finish(folder, complete=False)


# --- evaluation -----------------------------------------------------------------------------------

_measured: dict[Path, int] = {}


def fssbench_evaluation_started(run: Run) -> None:
    """Start a run with the setting of the evaluation."""
    manifest = run.manifest
    setting = {"matcher": run.matcher, "backbone": run.backbone, "manifest": manifest.digest}
    names = ("protocol", "fold", "shots", "seed", "ways")
    _start(run, {**setting, **{name: getattr(manifest, name) for name in names}})
    _measured[run.folder] = run.done


def fssbench_episodes_measured(run: Run, episodes: Sequence[Episode]) -> None:
    """Log the number of measured episodes."""
    _measured[run.folder] += len(episodes)
    _log(run, "", {"episodes": _measured[run.folder]}, _measured[run.folder])


def fssbench_evaluation_finished(run: Run, record: Record) -> None:
    """Log scores and intervals, and end the run."""
    intervals = {
        f"{name}_{side}": value
        for name, interval in record.intervals.items()
        for side, value in zip(("low", "high"), interval, strict=True)
    }
    _log(run, "", {**record.scores, **intervals}, _measured.pop(run.folder))
    _finish(run.folder, complete=True)


# --- training -------------------------------------------------------------------------------------


def fssbench_training_started(run: TrainingRun) -> None:
    """Start a run with the setting and the recipe of the training."""
    recipe, optimiser = run.recipe, run.recipe.optimiser
    names = ("matcher", "backbone", "stage", "fold", "seed", "steps", "select_on")
    _start(run, {
        **{name: getattr(run, name) for name in names},
        "dataset": run.dataset.name, "recipe": recipe.name, "shots": recipe.shots,
        "batch": recipe.batch, "optimiser": optimiser.kind, "lr": optimiser.lr,
    })  # fmt: skip


def fssbench_step_finished(
    run: TrainingRun, step: int, losses: Mapping[str, float], lr: float, gradient_norm: float,
    waited: float,
) -> None:  # fmt: skip
    """Log losses, learning rate, gradient norm and the seconds of waiting for data."""
    _log(run, "loss/", losses, step)
    _log(run, "", {"lr": lr, "gradient_norm": gradient_norm, "waited": waited}, step)


def fssbench_validation_finished(run: TrainingRun, step: int, scores: Mapping[str, float]) -> None:
    """Log validation scores."""
    _log(run, "validation/", scores, step)


def fssbench_held_out_measured(run: TrainingRun, step: int, measures: Mapping[str, float]) -> None:
    """Log measures of held-out images."""
    _log(run, "held_out/", measures, step)


def fssbench_training_finished(run: TrainingRun) -> None:
    """End the run."""
    _finish(run.folder, complete=True)
