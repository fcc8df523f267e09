"""Plot of a paired comparison."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy

from fssbench.board.compare import Paired
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.statistics.compare import Difference

FORMATS = (".png", ".pdf", ".svg")
SCORES = {"miou": "mIoU", "fb_iou": "FB-IoU", "episode_miou": "episode mIoU"}
"""Scores of a comparison, with their names."""
_BINS = numpy.arange(-102.5, 103, 5)  # ties are in the middle of a bin
_CLASSES = 60  # of more classes, those with the largest differences


def check_plot(path: Path) -> None:
    """Raise an `FssbenchError` unless a plot can be written to this file."""
    if path.suffix.lower() not in FORMATS:
        raise FssbenchError(f"{path}: a picture's name ends in {', '.join(FORMATS)}")
    if importlib.util.find_spec("matplotlib") is None:
        raise FssbenchError("a plot needs matplotlib, not installed: pip install 'fssbench[train]'")


def draw_comparison(paired: Paired, path: Path) -> None:
    """Plot the difference of each score and class with its interval, and those of the episodes.

    Raises:
        FssbenchError: see `check_plot`, or the file cannot be written.
    """
    check_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scores, classes, left_out = _lines(paired)
    lines = scores + classes
    figure = Figure(figsize=(11, max(4.0, 1.6 + 0.22 * len(lines))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_differences(left, lines)
    left.axhline(len(scores) - 0.5, color="black", linewidth=0.5)
    if left_out:
        left.set_xlabel(f"B - A (points); {left_out} classes in the middle are not shown")
    _draw_episodes(right, paired)
    first, second = paired.labels
    folds = ", ".join(map(str, paired.folds))
    setting = f"{paired.record.protocol}, {paired.record.shots}-shot, fold {folds}"
    # A $ in a label would start a formula.
    figure.suptitle(f"A: {first}\nB: {second}\n{setting}", parse_math=False, fontsize=10)
    data = io.BytesIO()
    figure.savefig(data, dpi=120, format=path.suffix.lower().removeprefix("."))
    write_atomically(path, data.getvalue())


Line = tuple[str, Difference]


def _lines(paired: Paired) -> tuple[list[Line], list[Line], int]:
    """Return lines of scores, lines of classes (best first), and the number of omitted classes."""
    result = paired.comparison
    scores = [(SCORES[name], value) for name, value in result.scores.items()]
    by_fold = zip(paired.folds, result.folds, strict=True)
    if len(paired.folds) > 1:
        scores += [(f"mIoU, fold {fold}", values["miou"]) for fold, values in by_fold]
    classes = [
        (paired.class_name(paired.folds[line.table], line.class_id), line.iou)
        for line in sorted(result.classes, key=lambda line: -line.iou.difference)
    ]
    left_out = max(0, len(classes) - _CLASSES)
    del classes[_CLASSES // 2 : _CLASSES // 2 + left_out]
    return scores, classes, left_out


def _draw_differences(axes: Any, lines: list[Line]) -> None:
    for height, (_, value) in enumerate(lines):
        colour = "grey" if not value.significant else "C0" if value.difference > 0 else "C3"
        axes.plot([value.low, value.high], [height, height], color=colour, linewidth=2)
        axes.plot([value.difference], [height], marker="o", markersize=4, color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [name for name, _ in lines], parse_math=False, fontsize=8)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set(xlabel="B - A (points)", title="difference, 95 % interval")
    axes.grid(axis="x", alpha=0.3)


def _draw_episodes(axes: Any, paired: Paired) -> None:
    """Draw a histogram of the differences between the IoUs of each episode."""
    both = []
    for side in (paired.a, paired.b):
        rows = [side[fold].rows() for fold in paired.folds]
        own = [(table["intersection_fg"] / table["union_fg"]).fillna(1.0) for table in rows]
        both.append(100 * numpy.concatenate(own))
    result = paired.comparison
    axes.hist(both[1] - both[0], bins=_BINS.tolist(), color="C0")
    axes.axvline(0, color="black", linewidth=0.8)
    counts = f"{result.wins} better, {result.ties} equal, {result.losses} worse"
    axes.set(xlabel="B - A, IoU of an episode (points)", title=f"episodes: {counts}")
    axes.grid(alpha=0.3)
