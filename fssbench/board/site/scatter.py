"""Scatter plots of accuracy against cost, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from fssbench.board.site.html import Html, join, tag

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 14, 42
ZERO_BAND = 30
"""Width of the strip for x = 0, which is not on a logarithmic axis."""
RADIUS = 5
FONT = 11.5
LETTER = 0.56 * FONT
"""Approximate mean width of a letter, for the placement of labels."""

Box = tuple[float, float, float, float]
_OFFSETS = (
    *(("start", 9, 4), ("end", -9, 4), ("middle", 0, -11), ("middle", 0, 20)),
    *(("start", 7, -8), ("start", 7, 16), ("end", -7, -8), ("end", -7, 16)),
)
"""Positions of a label relative to its point: anchor, x and y; the first free one is taken."""


@attrs.frozen(kw_only=True)
class Point:
    """A row of a table as a point.

    Attributes:
        row: id of the row.
        label: text beside the point.
        title: text of the tooltip.
        x: parameters or seconds, from 0.
        y: score in percent.
        interval: interval of y.
        ranked: True if the row has a rank.
    """

    row: str
    label: str
    title: str
    x: float
    y: float
    interval: tuple[float, float]
    ranked: bool


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the linear function from values to positions."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def scatter(points: Sequence[Point], what: str, unit: Callable[[float], str]) -> Html:
    """Return a plot of points: x logarithmic, y in percent, whiskers for the intervals.

    Args:
        points: points, at least one, best first; the first labels are shown if not all fit.
        what: name of the x axis.
        unit: function from a value of x to its text.
    """
    zero = any(point.x == 0 for point in points)
    start = LEFT + (ZERO_BAND if zero else 0)
    exponents = [math.log10(point.x) for point in points if point.x > 0] or [0.0]
    low, high = min(exponents), max(exponents)
    # At least a third of a decade, for points of equal cost.
    middle, half = (low + high) / 2, max((high - low) / 2, 1 / 6)
    low, high = middle - half, middle + half
    x = _scale(low, high, start + 14, WIDTH - RIGHT - 10)
    lows, highs = zip(*(point.interval for point in points), strict=True)
    ticks_y = _round_ticks(max(0.0, min(lows)), min(100.0, max(highs)))
    y = _scale(ticks_y[0], ticks_y[-1], HEIGHT - BOTTOM, TOP)

    bottom = HEIGHT - BOTTOM
    parts = [_horizontal(value, y(value)) for value in ticks_y]
    parts += [_vertical(x(math.log10(value)), unit(value)) for value in _log_ticks(low, high)]
    if zero:
        parts.append(_vertical(LEFT + ZERO_BAND / 2, "0"))
    parts.append(tag("text", what, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="axis-name"))
    # The axis has a gap between 0 and the first power.
    stretches = [(LEFT, start - 6), (start, WIDTH - RIGHT)] if zero else [(LEFT, WIDTH - RIGHT)]
    parts += [tag("line", x1=a, x2=b, y1=bottom, y2=bottom, class_="axis") for a, b in stretches]
    positions = [
        (x(math.log10(point.x)) if point.x > 0 else LEFT + ZERO_BAND / 2, y(point.y))
        for point in points
    ]
    labels = _labels(points, positions)
    # The best point is drawn last, on top of the others.
    for point, (px, py), label in reversed(list(zip(points, positions, labels, strict=True))):
        whisker = tag(
            "line", x1=_n(px), x2=_n(px), y1=_n(y(point.interval[0])), y2=_n(y(point.interval[1])),
            class_="whisker",
        )  # fmt: skip
        circle = tag("circle", cx=_n(px), cy=_n(py), r=RADIUS, class_="dot")
        inside = [tag("title", point.title), whisker, circle, label]
        kind = "point" if point.ranked else "point unranked"
        parts.append(tag("g", *inside, class_=kind, data_row=point.row))
    text = f"Mean class mIoU in percent against {what}, {len(points)} methods; the table has both."
    return tag(
        "svg", join(parts), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=text,
        class_="scatter",
    )  # fmt: skip


def _horizontal(value: float, y: float) -> Html:
    line = tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_n(y), y2=_n(y), class_="grid")
    return join([line, tag("text", f"{value:g}", x=LEFT - 7, y=_n(y + 4), class_="tick end")])


def _vertical(x: float, name: str) -> Html:
    bottom = HEIGHT - BOTTOM
    line = tag("line", x1=_n(x), x2=_n(x), y1=bottom, y2=bottom + 4, class_="axis")
    return join([line, tag("text", name, x=_n(x), y=bottom + 17, class_="tick middle")])


def _labels(points: Sequence[Point], positions: Sequence[tuple[float, float]]) -> list[Html]:
    """Return the labels of points; empty where one would overlap a point or another label."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in positions]
    found: list[Html] = []
    for point, (px, py) in zip(points, positions, strict=True):
        width = LETTER * len(point.label)
        label = Html("")
        for anchor, dx, dy in _OFFSETS:
            left = px + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, py + dy - FONT + 2, left + width, py + dy + 2)
            inside = box[0] > LEFT and box[2] < WIDTH and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            gaps = (max(b[0] - box[2], box[0] - b[2], b[1] - box[3], box[1] - b[3]) for b in taken)
            if inside and all(gap >= 0 for gap in gaps):
                taken.append(box)
                position = {"x": _n(px + dx), "y": _n(py + dy)}
                label = tag("text", point.label, **position, class_=f"name {anchor}")
                break
        found.append(label)
    return found


def _log_ticks(low: float, high: float) -> list[float]:
    """Return powers of ten, and numbers between them if these are few."""
    found: list[float] = []
    decades = range(math.floor(low), math.ceil(high) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        values = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in values if low <= math.log10(value) <= high]
        if len(found) >= 3:
            break
    return found


def _round_ticks(low: float, high: float) -> list[float]:
    """Return round numbers in about four steps that enclose a range."""
    size = max(high - low, 1.0) / 4
    power = 10.0 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(step * number, 6) for number in range(first, last + 1)]


def _n(value: float) -> str:
    return f"{value:.1f}"
