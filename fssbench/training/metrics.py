"""Metrics of a training in files: ``metrics.csv``, ``held_out.csv``, TensorBoard events."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fssbench.files import cannot_write, write_atomically
from fssbench.training.training import TrainingRun

METRICS_FILE = "metrics.csv"
HELD_OUT_FILE = "held_out.csv"


class MetricsFile:
    """An observer that writes ``metrics.csv``.

    The columns are step, epoch, lr, gradient_norm, total, the losses by name, and miou, which is
    set in the lines of validations only. When an interrupted training is resumed, lines after its
    last save are dropped, because their steps are repeated.
    """

    def fssbench_training_started(self, run: TrainingRun) -> None:
        """Drop the lines after the last saved step."""
        self._path = run.folder / METRICS_FILE
        rows = read_metrics(self._path) if run.done else []
        rows = [row for row in rows if int(row["step"]) <= run.done]
        _write(self._path, rows)
        self._columns = list(rows[0]) if rows else []
        self._file = self._path.open("a", buffering=1, newline="")

    def fssbench_step_finished(
        self, run: TrainingRun, step: int, losses: Mapping[str, float], lr: float,
        gradient_norm: float,
    ) -> None:  # fmt: skip
        """Append a step."""
        total = {"gradient_norm": gradient_norm, "total": losses["total"]}
        self._append({**_place(run, step), "lr": lr, **total, **losses})

    def fssbench_validation_finished(
        self, run: TrainingRun, step: int, scores: Mapping[str, float]
    ) -> None:
        """Append a validation."""
        self._append({**_place(run, step), "miou": scores["miou"]})

    def fssbench_held_out_measured(
        self, run: TrainingRun, step: int, measures: Mapping[str, float]
    ) -> None:
        """Write ``held_out.csv``: step, epoch, and a column for each measure."""
        path = run.folder / HELD_OUT_FILE
        rows = [row for row in read_metrics(path) if int(row["step"]) < step]
        _write(path, [*rows, {**_place(run, step), **measures}])

    def fssbench_training_finished(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            if not self._columns:
                self._columns = [*(name for name in row if name != "miou"), "miou"]
                self._file.write(",".join(self._columns) + "\n")
            csv.DictWriter(self._file, self._columns, lineterminator="\n").writerow(row)
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _place(run: TrainingRun, step: int) -> dict[str, Any]:
    return {"step": step, "epoch": f"{step / run.epoch_steps:.4f}"}


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Return the lines of a metrics file, without a truncated last line."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(whole)))


class TensorBoard:
    """An observer that writes event files if tensorboard is installed."""

    def __init__(self) -> None:
        self._writer: Any = None

    def fssbench_training_started(self, run: TrainingRun) -> None:
        """Open an event file; repeated steps replace those of an earlier file."""
        if importlib.util.find_spec("tensorboard") is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            log_dir=str(run.folder / "tensorboard"), purge_step=run.done + 1
        )

    def fssbench_step_finished(
        self, step: int, losses: Mapping[str, float], lr: float, gradient_norm: float,
        waited: float,
    ) -> None:  # fmt: skip
        """Write a step."""
        self._write("loss/", losses, step)
        self._write("", {"lr": lr, "gradient_norm": gradient_norm, "waited": waited}, step)

    def fssbench_validation_finished(self, step: int, scores: Mapping[str, float]) -> None:
        """Write a validation."""
        self._write("validation/", scores, step)

    def fssbench_held_out_measured(self, step: int, measures: Mapping[str, float]) -> None:
        """Write measures of held-out images."""
        self._write("held_out/", measures, step)

    def _write(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{prefix}{name}", value, step)

    def fssbench_training_finished(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
