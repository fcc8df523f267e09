"""Silhouettes of the `shapes` classes and of the clutter.

A silhouette is a *template*, a bool array of 256 x 256 cells over the square [-1, 1] x [-1, 1] (y
points down), computed with element-wise float64 `+ - * /` and comparisons alone. IEEE 754 rounds
these exactly, so a template is the same bit for bit on every platform.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

CELLS = 256

Template: TypeAlias = NDArray[np.bool_]
_Point: TypeAlias = tuple[float, float]

_AXIS = (np.arange(CELLS, dtype=np.float64) + 0.5) / (CELLS // 2) - 1.0
_X, _Y = _AXIS[None, :], _AXIS[:, None]


@cache
def silhouette(name: str) -> Template:
    """Return the template of one `shapes` class.

    Args:
        name: key of `SILHOUETTES`.

    Returns:
        Read-only bool array (256, 256); true inside the outline.
    """
    template = SILHOUETTES[name]()
    template.setflags(write=False)
    return template


def polygon(points: Sequence[_Point]) -> Template:
    """Fill a closed polygon by the even-odd rule.

    Args:
        points: corners (x, y) in template coordinates, in order, in either direction.

    Returns:
        Bool array (256, 256).
    """
    inside = np.zeros((CELLS, CELLS), dtype=np.bool_)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        if y0 != y1:
            crossing = (x1 - x0) * (_Y - y0) / (y1 - y0) + x0
            inside ^= ((y0 > _Y) != (y1 > _Y)) & (crossing > _X)
    return inside


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Template:
    """Fill an axis-parallel ellipse with centre (cx, cy) and half-axes (rx, ry).

    Returns:
        Bool array (256, 256).
    """
    u, v = (_X - cx) / rx, (_Y - cy) / ry
    return u * u + v * v < 1.0


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Template:
    """Fill an axis-parallel rectangle.

    Returns:
        Bool array (256, 256).
    """
    return (x0 < _X) & (x1 > _X) & (y0 < _Y) & (y1 > _Y)


def _disc(cx: float, cy: float, r: float) -> Template:
    return ellipse(cx, cy, r, r)


def _bar(
    cx: float, cy: float, half_length: float, half_width: float, ux: float, uy: float
) -> Template:
    """Fill a rectangle with its long axis along the unit vector (ux, uy)."""
    dx, dy = _X - cx, _Y - cy
    along, across = dx * ux + dy * uy, dy * ux - dx * uy
    return (along * along < half_length * half_length) & (across * across < half_width * half_width)


# Unit vectors are literals, because cosines are not bit-identical on every platform.
_FIFTHS: tuple[_Point, ...] = (
    (0.0, -1.0),
    (0.9510565162951535, -0.3090169943749474),
    (0.5877852522924731, 0.8090169943749475),
    (-0.5877852522924731, 0.8090169943749475),
    (-0.9510565162951535, -0.3090169943749474),
)
_EIGHTHS: tuple[_Point, ...] = (
    (1.0, 0.0),
    (0.7071067811865476, 0.7071067811865476),
    (0.0, 1.0),
    (-0.7071067811865476, 0.7071067811865476),
)
_THIRDS: tuple[_Point, ...] = (
    (0.0, -1.0),
    (0.8660254037844386, 0.5),
    (-0.8660254037844386, 0.5),
)


def _star() -> Template:
    corners: list[_Point] = []
    for i, (x, y) in enumerate(_FIFTHS):
        far_x, far_y = _FIFTHS[(i + 3) % 5]
        corners += [(0.98 * x, 0.98 * y), (-0.42 * far_x, -0.42 * far_y)]
    return polygon(corners)


def _crescent() -> Template:
    return _disc(-0.05, 0.0, 0.95) & ~_disc(0.4, 0.0, 0.78)


def _mug() -> Template:
    handle = _disc(0.4, -0.05, 0.52) & ~_disc(0.4, -0.05, 0.27)
    return rectangle(-0.9, -0.8, 0.4, 0.8) | (handle & (_X > 0.3))


def _arrow() -> Template:
    return polygon(
        [(0.95, 0), (0.1, -0.8), (0.1, -0.3), (-0.95, -0.3), (-0.95, 0.3), (0.1, 0.3), (0.1, 0.8)]
    )


def _flower() -> Template:
    petals = np.zeros((CELLS, CELLS), dtype=np.bool_)
    for x, y in _FIFTHS:
        petals |= _disc(0.6 * x, 0.6 * y, 0.37)
    return (petals | _disc(0.0, 0.0, 0.5)) & ~_disc(0.0, 0.0, 0.2)


def _gear() -> Template:
    teeth = np.zeros((CELLS, CELLS), dtype=np.bool_)
    for ux, uy in _EIGHTHS:
        teeth |= _bar(0.0, 0.0, 0.96, 0.16, ux, uy)
    return (teeth | _disc(0.0, 0.0, 0.72)) & ~_disc(0.0, 0.0, 0.3)


def _hourglass() -> Template:
    cone = polygon([(-0.8, -0.72), (0.8, -0.72), (0.1, 0), (0.8, 0.72), (-0.8, 0.72), (-0.1, 0)])
    return cone | rectangle(-0.8, -0.95, 0.8, -0.7) | rectangle(-0.8, 0.7, 0.8, 0.95)


def _fish() -> Template:
    body = ellipse(0.2, 0.0, 0.75, 0.5) & ~_disc(0.55, -0.15, 0.11)
    return body | polygon([(-0.35, 0.0), (-0.95, -0.6), (-0.75, 0.0), (-0.95, 0.6)])


def _cross() -> Template:
    return rectangle(-0.9, -0.3, 0.9, 0.3) | rectangle(-0.3, -0.9, 0.3, 0.9)


def _mushroom() -> Template:
    cap = ellipse(0.0, 0.1, 0.95, 0.95) & (_Y < 0.1)
    return cap | rectangle(-0.25, 0.0, 0.25, 0.95)


def _heart() -> Template:
    lobes = _disc(-0.44, -0.35, 0.48) | _disc(0.44, -0.35, 0.48)
    return lobes | polygon(
        [(-0.85, -0.1), (-0.44, -0.5), (0, -0.35), (0.44, -0.5), (0.85, -0.1), (0, 0.92)]
    )


def _comb() -> Template:
    back = rectangle(-0.9, -0.85, 0.9, -0.35)
    left, middle = rectangle(-0.9, -0.5, -0.5, 0.85), rectangle(-0.2, -0.5, 0.2, 0.85)
    return back | left | middle | rectangle(0.5, -0.5, 0.9, 0.85)


def _ring() -> Template:
    return _disc(0.0, 0.0, 0.95) & ~_disc(0.0, 0.0, 0.52)


def _bolt() -> Template:
    left = [(0.45, -0.95), (-0.25, -0.95), (-0.65, 0.15), (-0.1, 0.1)]
    return polygon([*left, (-0.45, 0.95), (0.7, -0.3), (0.1, -0.25)])


def _fir() -> Template:
    tiers = rectangle(-0.15, 0.5, 0.15, 0.95)
    for top, base, half in ((-0.95, -0.3, 0.42), (-0.5, 0.15, 0.6), (-0.1, 0.65, 0.8)):
        tiers |= polygon([(0.0, top), (half, base), (-half, base)])
    return tiers


def _frame() -> Template:
    return rectangle(-0.85, -0.85, 0.85, 0.85) & ~rectangle(-0.45, -0.45, 0.45, 0.45)


def _propeller() -> Template:
    blades = _disc(0.0, 0.0, 0.2)
    for ux, uy in _THIRDS:
        dx, dy = _X - 0.52 * ux, _Y - 0.52 * uy
        along, across = (dx * ux + dy * uy) / 0.46, (dy * ux - dx * uy) / 0.27
        blades |= along * along + across * across < 1.0
    return blades


def _key() -> Template:
    bow = _disc(-0.5, 0.0, 0.46) & ~_disc(-0.5, 0.0, 0.19)
    bits = rectangle(0.42, 0.0, 0.6, 0.5) | rectangle(0.77, 0.0, 0.95, 0.5)
    return bow | rectangle(-0.1, -0.15, 0.95, 0.15) | bits


def _chevron() -> Template:
    return polygon([(-0.95, -0.55), (-0.5, -0.8), (0, 0.1), (0.5, -0.8), (0.95, -0.55), (0, 0.95)])


def _house() -> Template:
    walls = rectangle(-0.65, -0.15, 0.65, 0.9) & ~rectangle(0.0, 0.3, 0.35, 0.95)
    chimney = rectangle(0.4, -0.85, 0.65, -0.2)
    return walls | chimney | polygon([(0.0, -0.95), (0.95, -0.1), (-0.95, -0.1)])


_DRAWN: tuple[Callable[[], Template], ...] = (
    _star, _crescent, _mug, _arrow, _flower, _gear, _hourglass, _fish, _cross, _mushroom,
    _heart, _comb, _ring, _bolt, _fir, _frame, _propeller, _key, _chevron, _house,
)  # fmt: skip
SILHOUETTES = {draw.__name__.removeprefix("_"): draw for draw in _DRAWN}
