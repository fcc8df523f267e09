"""Plots of the statistics of a manifest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssbench.episodes.analysis.stats import EpisodeStats, Width
from fssbench.files import write_atomically


def draw_stats(title: str, stats: EpisodeStats, found: Sequence[Width], path: Path) -> None:
    """Draw class shares, and interval widths (or images without rows) by number of episodes.

    The format is that of the file's suffix; matplotlib must be installed.

    Raises:
        FssbenchError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes = stats.classes
    figure = Figure(figsize=(10, max(3.6, 1.4 + 0.2 * len(classes))), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.barh(range(len(classes)), [c.share for c in classes], color="C0")
    left.set_yticks(range(len(classes)), [c.name for c in classes], parse_math=False, fontsize=8)
    left.invert_yaxis()
    left.set(xlabel="episodes (%)", title="class shares")
    left.grid(axis="x", alpha=0.3)
    heading, curves = _curves(found)
    right.set(xscale="log", xlabel="episodes", title=heading)
    for style, label, points in curves:
        right.plot(*zip(*points, strict=True), style, label=label)
    right.set_ylim(bottom=0)
    right.legend(fontsize=8)
    shown = [width.episodes for width in found]
    right.set_xticks(shown, [f"{n:,}" for n in shown], fontsize=8, rotation=30)
    right.minorticks_off()
    right.grid(alpha=0.3)
    figure.suptitle(title, parse_math=False, fontsize=10)
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format=path.suffix.lower().removeprefix("."))
    write_atomically(path, data.getvalue())


def _curves(found: Sequence[Width]) -> tuple[str, list[tuple[str, str, list[Any]]]]:
    """Return a title, and style, label and (episodes, value) points of each curve."""
    measured = [w for w in found if w.stretches]
    if any(w.width is not None for w in measured):
        widths = [(w.episodes, w.width) for w in measured]
        further = [(w.episodes, w.width) for w in found if not w.stretches]
        curves = [("C0o-", "measured", widths)]
        if further:
            curves.append(("C0o--", "expected, if images are new", [widths[-1], *further]))
        return "width of the 95 % interval of mIoU (points)", curves
    return "query images", [
        ("o-", "different", [(w.episodes, w.images) for w in measured]),
        ("o--", "effective", [(w.episodes, w.effective) for w in measured]),
    ]
