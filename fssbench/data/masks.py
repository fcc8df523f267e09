"""The meaning of the pixels of mask files: one rule for every dataset and for ``predict``.

A file whose meaning is not known by this rule is an error. The rule is documented in docs/masks.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import attrs
import numpy as np
import torch
from PIL import Image
from scipy import ndimage as scipy_ndimage
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.data.images import MISSING, decode, turned
from fssbench.errors import FssbenchError

Array = np.ndarray[Any, np.dtype[np.uint8]]

ndimage: Any = scipy_ndimage  # without type annotations

Foreground = Literal["auto", "labels", "nonblack", "bright", "alpha"]
"""Foreground of a mask file: ``auto`` (the rule of docs/masks.md), or the pixels of every label but
0 and 255, of every colour but black, of a grey value of 128 and more, or of an opacity of 128 and
more."""

Palette = Literal["auto", "index", "colour"]
"""Class of a pixel of a palette file: its index, the index of its colour in VOC's colour map, or
``auto``: the colour if all colours are VOC's in another order, else the index."""

HALF = 128
"""Grey value or opacity from which a pixel is foreground."""

DARK, LIGHT = 31, 224
"""Greatest grey value near black and smallest one near white; soft edges lie between."""

_NAMED = 8  # values or colours in an error
_COLOURS = 64  # of a drawing; a file with more is a photograph or has soft edges
_GREY_SPREAD = 48  # between the channels of grey pixels; FSS-1000's masks have up to 39
_FAINT = 8  # between the channels of a grey picture without areas
_EDGE = 8  # pixels between a soft edge and both its sides
_ROUGH = 0.35  # share of pixels outside of areas from which a picture is a photograph
_BLOCK = 9  # pixels; a flat square of this side holds values that JPEG's noise did not change
_LOSSY = ("JPEG", "MPO")
_SPREAD = {"L;2": 85, "L;4": 17}  # factor by which Pillow multiplies samples of fewer than 8 bits
_CHOOSE = ", or choose their meaning with -d palette=index|colour"


class UnclearMaskError(FssbenchError):
    """The meaning of the values of a mask file is not known."""


class _UnclearError(Exception):
    """The meaning of values is not known; the file is added by the caller."""


def voc_colours() -> Array:
    """Return VOC's colour map, uint8 (256, 3): the bits of an index in turn, highest first."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            part = index >> (3 * bit + channel) & 1
            colours[:, channel] |= (part << (7 - bit)).astype(np.uint8)
    return colours


_VOC = [tuple(colour) for colour in voc_colours().tolist()]
_BLACK, _VOID = _VOC[0], _VOC[IGNORE]
_VOC_LABELS = {colour: label for label, colour in enumerate(_VOC)}


def read_foreground(
    path: Path, how: Foreground = "auto", *, missing: str = MISSING, option: str = "-d foreground"
) -> Tensor:
    """Return the foreground of a mask file as uint8 (H, W) of 0, 1 and 255 (ignored).

    Args:
        path: mask file, shown in errors as given.
        how: foreground, see `Foreground`.
        missing: text of the error for a missing file.
        option: option of the user for `how`, for the error.

    Raises:
        FssbenchError: the file cannot be read, or the meaning of its values is not known.
    """
    stored = decode(path, missing, _Stored.of)
    try:
        return torch.from_numpy(np.array(_READERS[how](stored)))
    except _UnclearError as unclear:
        words = "|".join(word for word in get_args(Foreground) if word not in ("auto", how))
        raise UnclearMaskError(
            f"{path}: {unclear}; choose the foreground with {option}={words} (docs/masks.md)"
        ) from unclear


def read_labels(
    path: Path, palette: Palette = "auto", *, missing: str = MISSING, deep: bool = False
) -> Tensor:
    """Return the class numbers of a label map as uint8 (H, W), or as int32 if `deep`.

    Args:
        path: grey or palette file, or a file in VOC's colours; shown in errors as given.
        palette: class of a pixel of a palette file, see `Palette`.
        missing: text of the error for a missing file.
        deep: True to read grey files of 16 bits too.

    Raises:
        FssbenchError: the file cannot be read, or the meaning of its values is not known.
    """
    stored = decode(path, missing, _deep_or_stored if deep else _Stored.of)
    try:
        labels = _labels(stored, palette) if isinstance(stored, _Stored) else stored
        return torch.from_numpy(np.array(labels, np.int32 if deep else np.uint8))
    except _UnclearError as unclear:
        choose = _CHOOSE if isinstance(stored, _Stored) and stored.picture.mode == "P" else ""
        raise UnclearMaskError(
            f"{path}: {unclear}; write class numbers as a grey file or in VOC's colours{choose} "
            "(docs/masks.md)"
        ) from unclear


@attrs.frozen(eq=False)
class _Stored:
    """A decoded mask file.

    Attributes:
        picture: picture, turned upright.
        spread: factor by which Pillow multiplied the stored samples.
        lossy: True for a compression that changes values.
    """

    picture: Image.Image
    spread: int
    lossy: bool

    @classmethod
    def of(cls, picture: Image.Image) -> _Stored:
        """Return the content of an open picture.

        Raises:
            ValueError: the file has more than 8 bits a channel.
        """
        tiles: Any = getattr(picture, "tile", None)  # of a file only, before it is decoded
        raw = tiles[0][3] if tiles else None
        if picture.mode.startswith(("I", "F")) or (isinstance(raw, str) and ";16" in raw):
            raise ValueError(
                f"its mode is {picture.mode}, more than 8 bits a channel; write it as 8 bits"
            )
        spread = _SPREAD.get(raw, 1) if isinstance(raw, str) else 1
        return cls(turned(picture), spread, picture.format in _LOSSY)

    @property
    def samples(self) -> Array:
        """Palette indices or grey samples as stored, (H, W)."""
        found: Array = np.asarray(self.picture).astype(np.uint8)
        return found // self.spread

    @property
    def grey(self) -> Array:
        """Grey values of the colours, (H, W)."""
        if self.picture.mode == "L":
            return self.samples
        return np.asarray(self.picture.convert("RGB").convert("L"))

    @property
    def colours(self) -> Array:
        """RGB colours without transparency, (H, W, 3)."""
        return np.asarray(self.picture.convert("RGB"))

    @property
    def alpha(self) -> Array | None:
        """Opacity (H, W), or None for an opaque file."""
        if not self.picture.has_transparency_data:
            return None
        alpha = np.asarray(self.picture.convert("RGBA"))[..., 3]
        return None if (alpha == 255).all() else alpha

    def used_palette(self) -> dict[int, tuple[int, ...]]:
        """Return the colours of the palette indices that occur."""
        palette = np.array(self.picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return {
            index: tuple(palette[index].tolist()) if index < len(palette) else (0, 0, 0)
            for index in _values(self.samples)
        }

    def drawn_colours(self) -> set[tuple[int, ...]] | None:
        """Return the RGB colours, or None if there are more than in a drawing."""
        found = self.picture.convert("RGB").getcolors(_COLOURS)
        return None if found is None else {colour for _, colour in found}  # type: ignore[misc]


def _deep_or_stored(picture: Image.Image) -> _Stored | np.ndarray[Any, np.dtype[np.int32]]:
    """Return the samples of a grey file of 16 bits, (H, W), or else the decoded file."""
    if picture.format == "PNG" and picture.mode.startswith("I"):
        return np.asarray(turned(picture)).astype(np.int32)
    return _Stored.of(picture)


def _labels(stored: _Stored, palette: Palette) -> Array:
    if stored.lossy:
        raise _UnclearError("a JPEG file does not hold exact class numbers")
    if stored.picture.mode == "P":
        return _palette_labels(stored, palette)
    if stored.picture.mode in ("1", "L"):
        return stored.samples
    colours = stored.drawn_colours()
    if colours is None or not colours <= _VOC_LABELS.keys():
        raise _UnclearError(
            f"its mode is {stored.picture.mode} and its colours are not those of VOC's colour map"
        )
    return _by_colour(stored)


def _palette_labels(stored: _Stored, palette: Palette = "auto") -> Array:
    used = stored.used_palette()
    distinct = len(set(used.values())) == len(used)
    moved = {
        index: colour
        for index, colour in used.items()
        if distinct and _VOC_LABELS.get(colour, index) != index
    }
    known = set(used.values()) <= _VOC_LABELS.keys()
    if palette == "index" or (palette == "auto" and not moved):
        return stored.samples
    if known:
        return _by_colour(stored)
    index, colour = next(iter(moved.items()), next(iter(used.items())))
    raise _UnclearError(
        f"palette index {index} has the colour {colour}"
        + (f", VOC's of class {_VOC_LABELS[colour]}" if colour in _VOC_LABELS else "")
        + ", and not all colours are VOC's"
    )


def _by_colour(stored: _Stored) -> Array:
    colours = stored.colours.astype(np.int64)
    packed = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    found = np.zeros(packed.shape, np.uint8)
    for value in np.unique(packed).tolist():
        found[packed == value] = _VOC_LABELS[value >> 16, value >> 8 & 255, value & 255]
    return found


def _auto(stored: _Stored) -> Array:
    """Return the foreground by the rule of docs/masks.md: alpha and colours must not differ."""
    alpha = stored.alpha
    if alpha is None:
        return _by_values(stored)
    constant = len(stored.drawn_colours() or ()) == 1
    if not alpha.any():
        if constant:
            return np.zeros_like(alpha)
        raise _UnclearError("every pixel is transparent, but the colours differ")
    if alpha.min() == alpha.max():
        return _by_values(stored)
    opaque = _bright(alpha, lossy=False)
    if constant and stored.picture.mode != "P":
        return opaque
    try:
        values = _by_values(stored)
    except _UnclearError:
        return opaque
    if ((values != opaque) & (values != IGNORE)).any():
        raise _UnclearError("its opacity and its colours mark different pixels")
    return values


def _by_values(stored: _Stored) -> Array:
    """Return the foreground by palette, colours or grey values, without transparency."""
    mode = stored.picture.mode
    if mode in ("1", "L"):
        return _grey_foreground(stored)
    if mode == "P":
        return _palette_foreground(stored)
    return _coloured(stored)


def _palette_foreground(stored: _Stored) -> Array:
    used = stored.used_palette()
    first, distinct = used.get(0, _BLACK), len(set(used.values())) == len(used)
    if set(used) <= {0, 1} and first == _BLACK and used.get(1) != _VOID:
        return stored.samples
    if distinct and set(used) != {0} and all(len(set(colour)) == 1 for colour in used.values()):
        return _bright(stored.grey, lossy=False)
    if distinct and _BLACK in used.values() and first != _BLACK and len(used) == 2:
        return _coloured(stored)
    if first != _BLACK and distinct and first not in _VOC_LABELS:
        raise _UnclearError(f"palette index 0 has the colour {first}, not black")
    return _object_labels(_palette_labels(stored))


def _object_labels(labels: Array) -> Array:
    values = _values(labels)
    if not set(values) <= {0, 1, IGNORE} or (IGNORE in values and 1 not in values):
        raise _UnclearError(
            f"its labels are {_listed(values)}, where 0 is background, 1 the object and 255 ignored"
        )
    return labels


def _coloured(stored: _Stored) -> Array:
    colours = stored.drawn_colours()
    drawn = set() if colours is None or stored.lossy else colours
    chromatic = {colour for colour in drawn if len(set(colour)) > 1}
    if len(drawn) == 2 and _BLACK in drawn and chromatic - {_VOID}:
        return _nonblack(stored)
    if chromatic and drawn <= _VOC_LABELS.keys():
        return _object_labels(_by_colour(stored))
    # Numbers of objects in dark colours; noise fills no areas.
    if chromatic and (areas := chromatic & _flat_colours(stored, drawn)):
        raise _UnclearError(f"its colours are {_listed(sorted({*areas, *drawn}))}")
    if _coloured_share(stored) <= (0 if drawn else 0.01):
        return _bright(stored.grey, stored.lossy)
    if colours is None:
        raise _UnclearError(
            f"it has {_colour_count(stored)} colours: it is a photograph, or a drawing with soft "
            "edges"
        )
    raise _UnclearError(f"its colours are {_listed(sorted(colours))}")


def _coloured_share(stored: _Stored, allowed: int = _GREY_SPREAD) -> float:
    """Return the share of pixels whose channels are more than `allowed` apart."""
    red, green, blue = np.moveaxis(stored.colours, -1, 0)  # faster than reducing the last axis
    lightest, darkest = np.maximum(red, green), np.minimum(red, green)
    spread = np.maximum(lightest, blue) - np.minimum(darkest, blue)
    return float((spread > allowed).mean())


def _colour_count(stored: _Stored) -> int:
    return len(np.unique(stored.colours.reshape(-1, 3), axis=0))


def _grey_foreground(stored: _Stored) -> Array:
    if stored.spread > 1:
        return _object_labels(stored.samples)
    return _bright(stored.grey if stored.picture.mode == "L" else stored.samples, stored.lossy)


def _bright(grey: Array, lossy: bool) -> Array:
    """Return the foreground of grey values: 1 of 0 and 1; 1 of 0, 1 and 255; else bright pixels.

    Values between black and white are allowed at soft edges and as compression noise: then a pixel
    of 128 and more is foreground.
    """
    counts = np.bincount(grey.ravel(), minlength=256)
    values = np.flatnonzero(counts).tolist()
    top = values[-1]
    if top <= 1 and not (lossy and top):
        return grey
    if top < HALF:
        raise _UnclearError(f"its brightest pixel is {top} of 255 (grey values {_listed(values)})")
    bright = (grey >= HALF).astype(np.uint8)
    if set(values) <= {0, top}:
        return bright
    flat = _flat(grey)
    if set(values) <= {0, 1, IGNORE} and not lossy:
        if 1 in flat:
            return grey
        if 100 * counts[1] <= counts[IGNORE]:  # stray pixels beside an object of 255
            return bright
        raise _UnclearError("its grey values are 0, 1 and 255, and its 1 marks no area")
    # JPEG may change 0 to 1, but everywhere.
    if {0, 1} <= flat and {0, 1} <= _flat(grey, _BLOCK):
        raise _UnclearError(
            "its grey values are 0, 1 and 255 with noise, and both 0 and 1 mark areas"
        )
    noisy = lossy or sum(value > LIGHT for value in values if value < IGNORE) >= 3
    areas = flat - {0, top}
    if noisy:
        areas = {value for value in areas if 8 <= value < LIGHT}
        if 20 * counts[sorted(areas)].sum() <= counts[HALF:].sum():
            areas = set()
    between = (grey > DARK) & (grey < LIGHT)
    stray = counts[1 : DARK + 1].sum()
    if areas or (not noisy and not between.any() and 100 * stray > counts[LIGHT:].sum()):
        raise _UnclearError(f"its grey values are {_listed(values)}")
    if between.any() and top >= LIGHT:
        size = 2 * _EDGE + 1
        dark = ndimage.minimum_filter(grey, size) <= DARK
        light = ndimage.maximum_filter(grey, size) >= LIGHT
        if between.mean() > 0.35 or (dark & light)[between].mean() < 0.75:
            raise _UnclearError(
                f"{between.mean():.0%} of its pixels are neither dark nor bright: it is a "
                "photograph, or its edges are too soft"
            )
    elif between.any():
        raise _UnclearError(f"its grey values are {_listed(values)}, none of them near 255")
    return bright


def _flat(grey: Array, size: int = 3) -> set[int]:
    """Return the values that fill a square of `size` x `size` pixels."""
    return set(_values(grey[_inside(grey, size)]))


def _inside(grey: Array, size: int = 3) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return the centres of the squares of one value."""
    found: np.ndarray[Any, np.dtype[np.bool_]] = ndimage.minimum_filter(
        grey, size
    ) == ndimage.maximum_filter(grey, size)
    return found


def _flat_colours(stored: _Stored, drawn: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Return the colours of a drawing that fill a square of 3 x 3 pixels."""
    listed = sorted(drawn)
    numbers = np.zeros(stored.colours.shape[:2], np.uint8)
    for number, colour in enumerate(listed):
        numbers[(stored.colours == colour).all(-1)] = number
    return {listed[number] for number in _flat(numbers)}


def _every_label(stored: _Stored) -> Array:
    labels = _labels(stored, "auto")
    found: Array = np.where(labels == IGNORE, IGNORE, labels > 0).astype(np.uint8)
    return found


def _nonblack(stored: _Stored) -> Array:
    brightest: Array = stored.colours.max(-1)
    if stored.drawn_colours() is None and 0 not in _flat(brightest):
        raise _UnclearError(f"it has {_colour_count(stored)} colours and no black area")
    return (brightest > 0).astype(np.uint8)


def _bright_pixels(stored: _Stored) -> Array:
    grey = np.asarray(stored.picture.convert("RGB").convert("L"))
    coloured = stored.drawn_colours() is None and _coloured_share(stored, _FAINT) > 0.01
    if coloured and (~_inside(grey)).mean() > _ROUGH:
        raise _UnclearError(f"it has {_colour_count(stored)} colours: it is a photograph")
    return (grey >= HALF).astype(np.uint8)


def _opaque(stored: _Stored) -> Array:
    if not stored.picture.has_transparency_data:
        raise _UnclearError("it has no transparency")
    return (np.asarray(stored.picture.convert("RGBA"))[..., 3] >= HALF).astype(np.uint8)


_READERS = {
    "auto": _auto,
    "labels": _every_label,
    "nonblack": _nonblack,
    "bright": _bright_pixels,
    "alpha": _opaque,
}


def _values(samples: Array) -> list[int]:
    found: list[int] = np.flatnonzero(np.bincount(samples.ravel(), minlength=256)).tolist()
    return found


def _listed(values: list[Any]) -> str:
    more = len(values) - _NAMED
    return ", ".join(map(str, values[:_NAMED])) + (f" and {more} more" if more > 0 else "")
