"""A manifest's statistics as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fssbench.episodes.analysis.stats import EpisodeStats, Width
from fssbench.files import write_atomically


def draw_stats(title: str, stats: EpisodeStats, found: Sequence[Width], path: Path) -> None:
    """Draw the class shares and the width of the interval, or the images, by episode count.

    The file's suffix says its format; matplotlib must be installed.

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
    if any(width.width is not None for width in found):
        _draw_widths(right, found)
    else:
        _draw_images(right, found)
    right.set(xscale="log", xlabel="episodes")
    shown = [width.episodes for width in found]
    right.set_xticks(shown, [f"{n:,}" for n in shown], fontsize=8, rotation=30)
    right.minorticks_off()
    right.grid(alpha=0.3)
    figure.suptitle(title, parse_math=False, fontsize=10)
    data = io.BytesIO()
    figure.savefig(data, dpi=110, format=path.suffix.lower().removeprefix("."))
    write_atomically(path, data.getvalue())


def _draw_widths(axes: Any, found: Sequence[Width]) -> None:
    measured = [w for w in found if w.stretches and w.width is not None]
    further = [*measured[-1:], *(w for w in found if not w.stretches)]
    for lines, style, label in (
        (measured, "o-", "measured"),
        (further, "o--", "expected, if images are new"),
    ):
        if len(lines) > 1 or label == "measured":
            axes.plot(
                [w.episodes for w in lines], [w.width for w in lines], style, markersize=4,
                color="C0", alpha=1.0 if label == "measured" else 0.5, label=label,
            )  # fmt: skip
    axes.set(ylabel="points", title="width of the 95 % interval of mIoU")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)


def _draw_images(axes: Any, found: Sequence[Width]) -> None:
    counted = [w for w in found if w.stretches]
    axes.plot([w.episodes for w in counted], [w.images for w in counted], "o-", label="different")
    axes.plot(
        [w.episodes for w in counted], [w.effective for w in counted], "o--", label="effective"
    )
    axes.set(title="query images")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
