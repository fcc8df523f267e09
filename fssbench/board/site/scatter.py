"""Accuracy against what it costs, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from fssbench.board.site.html import Html, join, tag

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 14, 42
ZERO_BAND = 30
"""Width of the place of x = 0, which a logarithmic axis does not have."""
RADIUS = 5
FONT = 11.5
LETTER = 0.56 * FONT
"""About how wide a letter is; labels are placed by it."""

Box = tuple[float, float, float, float]


@attrs.frozen(kw_only=True)
class Point:
    """One row of a table.

    Attributes:
        row: id of the row.
        label: what it is called beside the point.
        title: all of it, for a pointer that rests on the point.
        x: parameters or seconds, from 0.
        y: score in percent.
        interval: of y.
        ranked: whether the row has a rank.
    """

    row: str
    label: str
    title: str
    x: float
    y: float
    interval: tuple[float, float]
    ranked: bool


@attrs.frozen
class _Scale:
    """Where on the picture a value lies."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def scatter(points: Sequence[Point], what: str, unit: Callable[[float], str]) -> Html:
    """A picture of the points: x logarithmic, y in percent, whiskers for the intervals.

    Args:
        points: at least one, best first; where names do not all fit, the first are shown.
        what: name of the x axis.
        unit: how a value of x is written.
    """
    zero = any(point.x == 0 for point in points)
    start = LEFT + (ZERO_BAND if zero else 0)
    exponents = [math.log10(point.x) for point in points if point.x > 0] or [0.0]
    x = _Scale(*_padded(min(exponents), max(exponents)), start + 14, WIDTH - RIGHT - 10)
    lows = [point.interval[0] for point in points]
    highs = [point.interval[1] for point in points]
    ticks_y = _round_ticks(max(0.0, min(lows)), min(100.0, max(highs)))
    y = _Scale(ticks_y[0], ticks_y[-1], HEIGHT - BOTTOM, TOP)

    def place(point: Point) -> tuple[float, float]:
        return (x(math.log10(point.x)) if point.x > 0 else LEFT + ZERO_BAND / 2), y(point.y)

    bottom = HEIGHT - BOTTOM
    parts = [_horizontal(value, y(value)) for value in ticks_y]
    parts += [_vertical(x(math.log10(value)), unit(value)) for value in _log_ticks(x.low, x.high)]
    if zero:
        parts.append(_vertical(LEFT + ZERO_BAND / 2, "0"))
    parts.append(tag("text", what, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="axis-name"))
    # The axis is broken between 0 and the first power.
    stretches = [(LEFT, start - 6), (start, WIDTH - RIGHT)] if zero else [(LEFT, WIDTH - RIGHT)]
    parts += [tag("line", x1=a, x2=b, y1=bottom, y2=bottom, class_="axis") for a, b in stretches]
    places = [place(point) for point in points]
    labels = _labels(points, places)
    # The best point is drawn last, above the others.
    for point, (px, py), label in reversed(list(zip(points, places, labels, strict=True))):
        whisker = tag(
            "line", x1=_n(px), x2=_n(px), y1=_n(y(point.interval[0])), y2=_n(y(point.interval[1])),
            class_="whisker",
        )  # fmt: skip
        circle = tag("circle", cx=_n(px), cy=_n(py), r=RADIUS, class_="dot")
        inside = [tag("title", point.title), whisker, circle, *([label] if label else [])]
        kind = "point" if point.ranked else "point unranked"
        parts.append(tag("g", *inside, class_=kind, data_row=point.row))
    told = f"Mean class mIoU in percent against {what}, {len(points)} methods; the table has both."
    return tag(
        "svg", join(parts), viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=told,
        class_="scatter",
    )  # fmt: skip


def _horizontal(value: float, y: float) -> Html:
    name = f"{value:g}"
    return join(
        [
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=_n(y), y2=_n(y), class_="grid"),
            tag("text", name, x=LEFT - 7, y=_n(y + 4), class_="tick end"),
        ]
    )


def _vertical(x: float, name: str) -> Html:
    bottom = HEIGHT - BOTTOM
    return join(
        [
            tag("line", x1=_n(x), x2=_n(x), y1=bottom, y2=bottom + 4, class_="axis"),
            tag("text", name, x=_n(x), y=bottom + 17, class_="tick middle"),
        ]
    )


def _labels(points: Sequence[Point], places: Sequence[tuple[float, float]]) -> list[Html | None]:
    """A name beside each point, where one fits without touching a point or another name."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    found: list[Html | None] = []
    for point, (px, py) in zip(points, places, strict=True):
        width = LETTER * len(point.label)
        for anchor, dx, dy in (
            ("start", 9, 4), ("end", -9, 4), ("middle", 0, -11), ("middle", 0, 20),
            ("start", 7, -8), ("start", 7, 16), ("end", -7, -8), ("end", -7, 16),
        ):  # fmt: skip
            left = px + dx - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, py + dy - FONT + 2, left + width, py + dy + 2)
            inside = box[0] > LEFT and box[2] < WIDTH and box[1] > 0 and box[3] < HEIGHT - BOTTOM
            if inside and not any(_touch(box, other) for other in taken):
                taken.append(box)
                found.append(
                    tag("text", point.label, x=_n(px + dx), y=_n(py + dy), class_=f"name {anchor}")
                )
                break
        else:
            found.append(None)
    return found


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _padded(low: float, high: float) -> tuple[float, float]:
    """At least a third of a decade, so that equal costs do not fill the axis."""
    middle, half = (low + high) / 2, max((high - low) / 2, 1 / 6)
    return middle - half, middle + half


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 10, 100, …; numbers between them where these are few."""
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        decades = range(math.floor(low), math.ceil(high) + 1)
        values = [step * 10.0**decade for decade in decades for step in steps]
        found = [value for value in values if low <= math.log10(value) <= high]
        if len(found) >= 3:
            break
    return found


def _round_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose both, about four steps apart."""
    size = max(high - low, 1.0) / 4
    power = 10.0 ** math.floor(math.log10(size))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= size)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(step * number, 6) for number in range(first, last + 1)]


def _n(value: float) -> str:
    return f"{value:.1f}"
