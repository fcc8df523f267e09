"""Metrics of a training in files: ``metrics.csv``, ``held_out.csv``, TensorBoard events."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

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

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._columns: list[str] = []

    def fssbench_training_started(self, run: TrainingRun) -> None:
        """Drop the lines after the last saved step."""
        self._path = run.folder / METRICS_FILE
        rows = read_metrics(self._path) if run.done else []
        rows = [row for row in rows if int(row["step"]) <= run.done]
        self._columns = list(rows[0]) if rows else []
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())

    def fssbench_step_finished(
        self, run: TrainingRun, step: int, losses: Mapping[str, float], lr: float,
        gradient_norm: float,
    ) -> None:  # fmt: skip
        """Append a step."""
        first = {"step": step, "epoch": f"{step / run.epoch_steps:.4f}", "lr": lr}
        total = {"gradient_norm": gradient_norm, "total": losses["total"]}
        self._append({**first, **total, **losses})

    def fssbench_validation_finished(
        self, run: TrainingRun, step: int, scores: Mapping[str, float]
    ) -> None:
        """Append a validation."""
        epoch = f"{step / run.epoch_steps:.4f}"
        self._append({"step": step, "epoch": epoch, "miou": scores["miou"]})

    def fssbench_held_out_measured(
        self, run: TrainingRun, step: int, measures: Mapping[str, float]
    ) -> None:
        """Write ``held_out.csv``: step, epoch, and a column for each measure."""
        path = run.folder / HELD_OUT_FILE
        rows = [row for row in read_metrics(path) if int(row["step"]) < step]
        new = {"step": str(step), "epoch": f"{step / run.epoch_steps:.4f}"}
        rows.append({**new, **{name: repr(value) for name, value in measures.items()}})
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue().encode())

    def fssbench_training_finished(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, row: Mapping[str, Any]) -> None:
        try:
            if not self._columns:
                self._columns = [*(name for name in row if name != "miou"), "miou"]
                self._open().write(",".join(self._columns) + "\n")
            csv.DictWriter(self._open(), self._columns, lineterminator="\n").writerow(row)
            self._open().flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def _open(self) -> TextIO:
        if self._file is None:
            self._file = self._path.open("a", newline="")
        return self._file


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
        self, step: int, losses: Mapping[str, float], lr: float, gradient_norm: float
    ) -> None:
        """Write a step."""
        if self._writer is not None:
            for name, value in losses.items():
                self._writer.add_scalar(f"loss/{name}", value, step)
            self._writer.add_scalar("lr", lr, step)
            self._writer.add_scalar("gradient_norm", gradient_norm, step)

    def fssbench_validation_finished(self, step: int, scores: Mapping[str, float]) -> None:
        """Write a validation."""
        if self._writer is not None:
            for name, value in scores.items():
                self._writer.add_scalar(f"validation/{name}", value, step)

    def fssbench_held_out_measured(self, step: int, measures: Mapping[str, float]) -> None:
        """Write measures of held-out images."""
        if self._writer is not None:
            for name, value in measures.items():
                self._writer.add_scalar(f"held_out/{name}", value, step)

    def fssbench_training_finished(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
