"""Scenes: silhouettes laid out in an image, and painted so that only the outline tells the class.

A scene is made in two steps, so that a label map can be had without painting it: `lay_out` places
objects and clutter, `paint` gives each of them, and the background, a colour and texture that are
drawn without looking at the class.

Scenes are the same bit for bit on every platform. Random bits come from Philox's raw stream only
(what NumPy's `Generator` makes of it may change between versions), and the arithmetic is on
integers, or on float64 with element-wise `+ - * /`, `sqrt`, `floor` and comparisons, which IEEE 754
rounds exactly. There is no sine, no power, no sum of floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, sqrt

import attrs
import numpy as np
from numpy.typing import NDArray

from fssbench.data.silhouettes import CELLS, Template, ellipse, polygon

SIZE = 160
"""Height and width of a scene in pixels."""

OBJECTS = (2, 4)
"""The fewest and the most objects of a scene."""

MIN_VISIBLE = 0.7
"""The part of an object's full area that occlusion and the image border must leave visible."""

_CLUTTER = (3, 7)  # fragments behind the objects
_FRONT = 2  # the most fragments in front of them
_SIDE = (44.0, 70.0)  # square root of an object's full area in pixels
_FRAGMENT_SIDE = (9.0, 26.0)
_MAX_SQUEEZE = 1.15  # anisotropy
_MAX_SHEAR = 0.15
_TRIES = 12
_TURN = 0.41421356237309503  # tan(22.5 degrees): objects are turned by up to 45 degrees
_SWING = 64  # how far apart the two colours of a texture may be, per channel
_CONTRAST = 150  # the least difference of a colour from the background's, summed over channels

IntArray = NDArray[np.int32]


class Bits:
    """Random numbers from a Philox key, the same on every platform and NumPy version."""

    def __init__(self, *, high: int, low: int) -> None:
        """Start the stream of a key.

        Args:
            high: One half of the key, 0 <= high < 2**64.
            low: The other half.
        """
        self._philox = np.random.Philox(key=np.array([low, high], dtype=np.uint64))
        self._words: list[int] = []

    def word(self) -> int:
        """64 random bits."""
        if not self._words:
            self._words = self._philox.random_raw(128).tolist()
        return self._words.pop()

    def below(self, bound: int) -> int:
        """An integer in [0, bound), for bound <= 2**32."""
        return ((self.word() >> 32) * bound) >> 32

    def integer(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)

    def between(self, low: float, high: float) -> float:
        """A float64 in [low, high)."""
        return low + (high - low) * ((self.word() >> 11) / (1 << 53))

    def bytes(self, height: int, width: int) -> IntArray:
        """An array of integers in [0, 255], int32 (height, width)."""
        count = height * width
        words = self._philox.random_raw(-(-count // 8)).astype("<u8")
        return words.view(np.uint8)[:count].reshape(height, width).astype(np.int32)


@attrs.frozen(eq=False)
class Layer:
    """One object or fragment, cropped to its box in the image.

    Attributes:
        label: 0 for clutter, else 1 + the index of the object's template.
        area: Full area in pixels, whether visible or not.
        top: First row of the box.
        left: First column of the box.
        coverage: Quarters of each pixel that it covers, int32 (h, w) in 0 .. 4.
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
    """What is where in an image.

    Attributes:
        layers: Objects and clutter, from back to front.
        labels: int16 (160, 160): 0 for background and clutter, else the label of the object.
    """

    layers: tuple[Layer, ...]
    labels: NDArray[np.int16]


def fragments(*, seed: int, count: int = 48) -> tuple[Template, ...]:
    """Templates of clutter: shards and pebbles that belong to no class.

    Args:
        seed: Which fragments; 0 <= seed < 2**64.
        count: How many.

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
    """Place 2 to 4 objects of different templates, and clutter behind and in front of them.

    An object that would hide too much of another, or be hidden, is drawn again; after a dozen tries
    it is dropped, but never one of the first two.

    Args:
        bits: Where the randomness comes from.
        templates: Templates of the classes, bool (256, 256) each; at least 4.
        clutter: Templates of the fragments.

    Returns:
        The scene; object `i` of `templates` has the label `i + 1`.
    """
    labels = np.zeros((SIZE, SIZE), dtype=np.int16)
    layers: list[Layer] = []
    for _ in range(bits.integer(*_CLUTTER)):
        layers.append(_fragment(bits, clutter))
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
    """Colour a scene.

    Args:
        bits: Where the randomness comes from; another stream than the layout's.
        scene: What `lay_out` returned.

    Returns:
        uint8 (3, 160, 160), RGB.
    """
    ground = _colour(bits)
    canvas = _textured(bits, SIZE, SIZE, ground)
    for layer in scene.layers:
        height, width = layer.coverage.shape
        surface = _textured(bits, height, width, _unlike(bits, ground))
        region = canvas[:, layer.box[0], layer.box[1]]
        region += ((surface - region) * layer.coverage) >> 2
    canvas *= _light(bits)
    canvas >>= 8
    grain = bits.integer(0, 24)
    noise = bits.bytes(3 * SIZE, SIZE).reshape(3, SIZE, SIZE) - 128
    canvas += (noise * grain) >> 8
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _distinct(bits: Bits, count: int, bound: int) -> list[int]:
    """`count` different integers in [0, bound)."""
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
    """Draw a pose and rasterise the template in it, with 2 x 2 samples a pixel."""
    full_side = bits.between(*side)
    density = int(np.count_nonzero(template)) / (CELLS * CELLS)
    scale = full_side / sqrt(4.0 * density)  # pixels a template unit; the template is 2 x 2 units
    squeeze = bits.between(1.0 / _MAX_SQUEEZE, _MAX_SQUEEZE)
    shear = bits.between(-_MAX_SHEAR, _MAX_SHEAR)
    # The rational parametrisation of the circle is exact where sine and cosine are not.
    t = bits.between(-_TURN, _TURN)
    cosine, sine = (1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t)
    # Template -> image, columns: rotate(shear(squeeze(.))), of determinant scale^2.
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
    """Whether every object, the new one included, keeps enough visible area."""
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
    """A colour that can be told from the background's."""
    while True:
        colour = _colour(bits)
        if sum(abs(a - b) for a, b in zip(colour, ground, strict=True)) >= _CONTRAST:
            return colour


def _textured(bits: Bits, height: int, width: int, colour: Sequence[int]) -> IntArray:
    """A random texture around a colour, int32 (3, height, width)."""
    mixture = _TEXTURES[bits.below(len(_TEXTURES))](bits, height, width) - 128
    base = np.array(colour, dtype=np.int32)[:, None, None]
    swing = [bits.integer(-_SWING, _SWING) for _ in range(3)]
    return base + ((np.array(swing, dtype=np.int32)[:, None, None] * mixture) >> 8)


def _light(bits: Bits) -> IntArray:
    """A gentle gradient of brightness in 1/256, int32 (160, 160)."""
    ramp = np.arange(SIZE, dtype=np.int32) - SIZE // 2
    across, down = bits.integer(-40, 40), bits.integer(-40, 40)
    return 256 - bits.below(32) + (across * ramp) // SIZE + ((down * ramp) // SIZE)[:, None]


# A texture is a mixture: int32 (height, width) in 0 (the first colour) .. 256 (the second).


def _flat(bits: Bits, height: int, width: int) -> IntArray:
    return np.zeros((height, width), dtype=np.int32)


def _wave(bits: Bits, height: int, width: int) -> tuple[IntArray, int]:
    """Phase of a plane wave in a random direction, and its period in the same unit."""
    a, b = bits.integer(-8, 8), bits.integer(1, 8)
    period = floor(sqrt(a * a + b * b) * bits.integer(6, 16))
    across = np.arange(width, dtype=np.int32) * a + bits.below(period)
    down = np.arange(height, dtype=np.int32) * b
    return (across + down[:, None]) % period, period


def _stripes(bits: Bits, height: int, width: int) -> IntArray:
    phase, period = _wave(bits, height, width)
    return (phase * 2 < period).astype(np.int32) * 256


def _checks(bits: Bits, height: int, width: int) -> IntArray:
    checks: IntArray = np.abs(_stripes(bits, height, width) - _stripes(bits, height, width))
    return checks


def _ripples(bits: Bits, height: int, width: int) -> IntArray:
    phase, period = _wave(bits, height, width)
    ripples: IntArray = np.abs(phase * 2 - period) * 256 // period
    return ripples


def _dots(bits: Bits, height: int, width: int) -> IntArray:
    pitch = bits.integer(7, 14)
    row, column = np.arange(height, dtype=np.int32), np.arange(width, dtype=np.int32)
    dy = ((row + bits.below(pitch)) % pitch) * 2 - pitch
    dx = ((column + bits.below(pitch)) % pitch) * 2 - pitch
    return ((dx * dx + (dy * dy)[:, None]) * 10 < pitch * pitch * 4).astype(np.int32) * 256


def _gradient(bits: Bits, height: int, width: int) -> IntArray:
    down = (np.arange(height, dtype=np.int32) * 256 // height)[:, None]
    across = np.arange(width, dtype=np.int32) * 256 // width
    weight = bits.integer(0, 8)
    return (down * weight + across * (8 - weight)) >> 3


def _clouds(bits: Bits, height: int, width: int) -> IntArray:
    """Bilinear interpolation of a coarse grid of random values."""
    cell = bits.integer(5, 16)
    grid = bits.bytes(height // cell + 2, width // cell + 2)
    row, part = np.divmod(np.arange(height, dtype=np.int32), np.int32(cell))
    grid = (grid[row] * (cell - part)[:, None] + grid[row + 1] * part[:, None]) // cell
    column, part = np.divmod(np.arange(width, dtype=np.int32), np.int32(cell))
    clouds: IntArray = (grid[:, column] * (cell - part) + grid[:, column + 1] * part) // cell
    return clouds


def _blotches(bits: Bits, height: int, width: int) -> IntArray:
    return (_clouds(bits, height, width) >= 128).astype(np.int32) * 256


def _speckles(bits: Bits, height: int, width: int) -> IntArray:
    return bits.bytes(height, width)


def _halves(bits: Bits, height: int, width: int) -> IntArray:
    return (_gradient(bits, height, width) >= bits.integer(90, 166)).astype(np.int32) * 256


_TEXTURES: tuple[Callable[[Bits, int, int], IntArray], ...] = (
    _flat,
    _stripes,
    _checks,
    _ripples,
    _dots,
    _gradient,
    _clouds,
    _blotches,
    _speckles,
    _halves,
)
