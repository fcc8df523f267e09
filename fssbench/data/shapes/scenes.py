"""Scenes of silhouettes, painted so that the class depends on the outline alone.

The layout is separate from the painting, so that label maps can be computed alone: `lay_out`
positions objects and clutter, `paint` draws a colour and texture for each of them and for the
background, independent of the class.

Scenes are the same bit for bit on every platform. Random bits come from Philox's raw stream only
(the methods of NumPy's `Generator` may change between versions), and the arithmetic is on
integers, or on float64 with element-wise `+ - * /`, `sqrt`, `floor` and comparisons, which IEEE 754
rounds exactly. There is no sine, no power, no sum of floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, sqrt

import attrs
import numpy as np
from numpy.typing import NDArray

from fssbench.data.shapes.bits import Bits, IntArray
from fssbench.data.shapes.silhouettes import CELLS, Template, ellipse, polygon
from fssbench.data.shapes.textures import textured

SIZE = 160
"""Height and width of a scene in pixels."""

OBJECTS = (2, 4)
"""Minimum and maximum number of objects in a scene."""

MIN_VISIBLE = 0.7
"""Minimum visible share of an object's full area, after occlusion and cropping."""

_CLUTTER = (3, 7)  # number of fragments behind the objects
_FRONT = 2  # maximum number of fragments in front of the objects
_SIDE = (44.0, 70.0)  # square root of an object's full area in pixels
_FRAGMENT_SIDE = (9.0, 26.0)
_MAX_SQUEEZE = 1.15  # anisotropy
_MAX_SHEAR = 0.15
_TRIES = 12
_TURN = 0.41421356237309503  # tan(22.5 degrees): objects are turned by up to 45 degrees
_CONTRAST = 150  # minimum difference from the background colour, summed over channels


@attrs.frozen(eq=False)
class Layer:
    """One object or fragment, cropped to its box in the image.

    Attributes:
        label: 0 for clutter, else 1 + the index of the object's template.
        area: full area in pixels, including hidden parts.
        top: first row of the box.
        left: first column of the box.
        coverage: int32 (h, w), covered quarters of each pixel, 0 to 4.
    """

    label: int
    area: float
    top: int
    left: int
    coverage: IntArray

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the box."""
        height, width = self.coverage.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@attrs.frozen(eq=False)
class Scene:
    """Layout of an image.

    Attributes:
        layers: objects and clutter, from back to front.
        labels: int16 (160, 160): 0 for background and clutter, else the object's label.
    """

    layers: tuple[Layer, ...]
    labels: NDArray[np.int16]


def fragments(*, seed: int, count: int = 48) -> tuple[Template, ...]:
    """Return templates of clutter: shards and pebbles that belong to no class.

    Args:
        seed: random seed, 0 <= seed < 2**64.
        count: number of templates.

    Returns:
        `count` bool arrays (256, 256).
    """
    bits = Bits(high=0x667261676D656E74, low=seed)
    made: list[Template] = []
    while len(made) < count:
        if bits.below(2):
            corners = [
                (bits.between(-0.95, 0.95), bits.between(-0.95, 0.95))
                for _ in range(bits.integer(3, 5))
            ]
            fragment = polygon(corners)
        else:
            fragment = ellipse(0.0, 0.0, 0.95, bits.between(0.4, 0.95))
            x, y = bits.between(-0.7, 0.7), bits.between(-0.7, 0.7)
            fragment &= ellipse(x, y, bits.between(0.4, 0.9), bits.between(0.4, 0.9))
        if np.count_nonzero(fragment) > CELLS * CELLS // 8:
            made.append(fragment)
    return tuple(made)


def lay_out(bits: Bits, templates: Sequence[Template], clutter: Sequence[Template]) -> Scene:
    """Position 2 to 4 objects of different templates, and clutter behind and in front of them.

    The pose of an object that hides too much of another one is drawn again, up to 12 times; then
    the object is dropped, except for the first two.

    Args:
        bits: random numbers.
        templates: templates of at least 4 classes, bool (256, 256) each.
        clutter: templates of the fragments.

    Returns:
        The scene; the label of template `i` is `i + 1`.
    """
    labels = np.zeros((SIZE, SIZE), dtype=np.int16)
    layers = [_fragment(bits, clutter) for _ in range(bits.integer(*_CLUTTER))]
    areas: dict[int, float] = {}
    for index in _distinct(bits, bits.integer(*OBJECTS), len(templates)):
        tries = 0
        while tries < _TRIES or len(areas) < 2:
            tries += 1
            layer = _place(bits, templates[index], index + 1, _SIDE, margin=30.0)
            if _fits(labels, areas, layer):
                _stamp(labels, layer)
                areas[layer.label] = layer.area
                layers.append(layer)
                break
    for _ in range(bits.integer(0, _FRONT)):
        layer = _fragment(bits, clutter)
        if _fits(labels, areas, layer):
            _stamp(labels, layer)
            layers.append(layer)
    return Scene(layers=tuple(layers), labels=labels)


def paint(bits: Bits, scene: Scene) -> NDArray[np.uint8]:
    """Paint a scene.

    Args:
        bits: random numbers, of another stream than the layout's.
        scene: layout of the image.

    Returns:
        uint8 (3, 160, 160), RGB.
    """
    ground = _colour(bits)
    canvas = textured(bits, SIZE, SIZE, ground)
    for layer in scene.layers:
        height, width = layer.coverage.shape
        surface = textured(bits, height, width, _unlike(bits, ground))
        region = canvas[:, layer.box[0], layer.box[1]]
        region += ((surface - region) * layer.coverage) >> 2
    canvas *= _light(bits)
    canvas >>= 8
    grain = bits.integer(0, 24)
    noise = bits.bytes(3 * SIZE, SIZE).reshape(3, SIZE, SIZE) - 128
    canvas += (noise * grain) >> 8
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _distinct(bits: Bits, count: int, bound: int) -> list[int]:
    """Return `count` different integers in [0, bound)."""
    chosen: list[int] = []
    while len(chosen) < count:
        index = bits.below(bound)
        if index not in chosen:
            chosen.append(index)
    return chosen


def _fragment(bits: Bits, clutter: Sequence[Template]) -> Layer:
    template = clutter[bits.below(len(clutter))]
    return _place(bits, template, 0, _FRAGMENT_SIDE, margin=0.0)


def _place(
    bits: Bits, template: Template, label: int, side: tuple[float, float], *, margin: float
) -> Layer:
    """Draw a random pose and rasterise the template in it, with 2 x 2 samples a pixel."""
    full_side = bits.between(*side)
    density = int(np.count_nonzero(template)) / (CELLS * CELLS)
    scale = full_side / sqrt(4.0 * density)  # pixels a template unit; the template is 2 x 2 units
    squeeze = bits.between(1.0 / _MAX_SQUEEZE, _MAX_SQUEEZE)
    shear = bits.between(-_MAX_SHEAR, _MAX_SHEAR)
    # Unlike sine and cosine, the rational parametrisation of the circle is rounded exactly.
    t = bits.between(-_TURN, _TURN)
    cosine, sine = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    # Columns of template -> image: rotate(shear(squeeze(.))), of determinant scale^2.
    xx, xy = squeeze * scale, shear * scale / squeeze
    yy = scale / squeeze
    ax, ay = cosine * xx, sine * xx
    bx, by = cosine * xy - sine * yy, sine * xy + cosine * yy
    cx, cy = bits.between(margin, SIZE - margin), bits.between(margin, SIZE - margin)
    half_width, half_height = abs(ax) + abs(bx), abs(ay) + abs(by)
    left, right = max(0, floor(cx - half_width)), min(SIZE, floor(cx + half_width) + 1)
    top, bottom = max(0, floor(cy - half_height)), min(SIZE, floor(cy + half_height) + 1)
    determinant = ax * by - ay * bx
    x = (np.arange(2 * left, 2 * right, dtype=np.float64) + 0.5) / 2.0 - cx
    y = ((np.arange(2 * top, 2 * bottom, dtype=np.float64) + 0.5) / 2.0 - cy)[:, None]
    u = (x * (by / determinant) + y * (-bx / determinant)) * (CELLS // 2) + CELLS // 2
    v = (x * (-ay / determinant) + y * (ax / determinant)) * (CELLS // 2) + CELLS // 2
    inside = (u >= 0.0) & (u < CELLS) & (v >= 0.0) & (v < CELLS)
    cells = v.astype(np.int32) * CELLS + u.astype(np.int32)
    samples = (template.ravel().take(cells, mode="clip") & inside).view(np.uint8)
    columns = samples[:, 0::2] + samples[:, 1::2]
    return Layer(
        label=label,
        area=full_side * full_side,
        top=top,
        left=left,
        coverage=(columns[0::2] + columns[1::2]).astype(np.int32),
    )


def _fits(labels: NDArray[np.int16], areas: dict[int, float], layer: Layer) -> bool:
    """Return True if enough area of every object, including the new one, is visible."""
    covered = layer.coverage >= 2
    if layer.label and int(np.count_nonzero(covered)) < MIN_VISIBLE * layer.area:
        return False
    hidden = np.bincount(labels[layer.box][covered])
    for label, area in areas.items():
        if label < hidden.size and hidden[label]:
            visible = int(np.count_nonzero(labels == label)) - int(hidden[label])
            if visible < MIN_VISIBLE * area:
                return False
    return True


def _stamp(labels: NDArray[np.int16], layer: Layer) -> None:
    labels[layer.box][layer.coverage >= 2] = layer.label


def _colour(bits: Bits) -> list[int]:
    return [bits.integer(32, 223) for _ in range(3)]


def _unlike(bits: Bits, ground: Sequence[int]) -> list[int]:
    """Return a colour that differs from the background's by at least `_CONTRAST`."""
    while True:
        colour = _colour(bits)
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) >= _CONTRAST:
            return colour


def _light(bits: Bits) -> IntArray:
    """Return a weak gradient of brightness in 1/256, int32 (160, 160)."""
    ramp = np.arange(SIZE, dtype=np.int32) - SIZE // 2
    across, down = bits.integer(-40, 40), bits.integer(-40, 40)
    return 256 - bits.below(32) + (across * ramp) // SIZE + ((down * ramp) // SIZE)[:, None]
