"""Losses and mIoU as a picture, when training ends."""

from __future__ import annotations

import importlib.util
import logging

from fssbench.training.metrics import METRICS_FILE, curves
from fssbench.training.run import TrainingRun

PLOT_FILE = "training.png"
_SHOWN = 1000  # points of a curve: more are averaged in groups

log = logging.getLogger(__name__)


class Plots:
    """An observer that draws ``training.png`` if matplotlib is installed."""

    def fssbench_training_finished(self, run: TrainingRun) -> None:
        """Draw ``metrics.csv``."""
        if importlib.util.find_spec("matplotlib") is None:
            log.info("no plot without matplotlib: pip install 'fssbench[train]'")
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        found = curves(run.folder / METRICS_FILE)
        miou = found.pop("miou", None)
        losses = {n: c for n, c in found.items() if n not in ("lr", "gradient_norm")}
        if len(losses) == 2:  # one loss with weight 1 is the total
            losses.pop("total")
        figure = Figure(figsize=(10, 4), layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for name, curve in losses.items():
            left.plot(*_thinned(curve.steps, curve.values), label=name, linewidth=1)
        left.set(xlabel="step", title="loss")
        left.legend()
        if miou is not None:
            right.plot(miou.steps, miou.values, marker="o", markersize=3)
        right.set(xlabel="step", title=f"validation mIoU (%), {run.select_on} classes")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        recipe = f"{run.stage}, {run.recipe.name}, fold {run.fold}"
        figure.suptitle(f"{run.matcher} on {run.backbone}: {recipe}")
        figure.savefig(run.folder / PLOT_FILE, dpi=120)


def _thinned(steps: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    group = -(-len(values) // _SHOWN)
    starts = range(0, len(values), group)
    means = [sum(values[i : i + group]) / len(values[i : i + group]) for i in starts]
    return [steps[i] for i in starts], means
