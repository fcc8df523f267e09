"""The meaning of the pixels of mask files: one rule for every dataset and for ``predict``.

A file whose meaning is not known by this rule is an error. The rule is documented in docs/masks.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.data.grey_masks import HALF, flat_squares, flat_values, foreground_of
from fssbench.data.images import MISSING, decode, turned
from fssbench.data.stored_mask import Array, StoredMask, UnclearError, listed, values_of
from fssbench.errors import FssbenchError

Foreground = Literal["auto", "labels", "nonblack", "bright", "alpha"]
"""Foreground of a mask file: ``auto`` (the rule of docs/masks.md), or the pixels of every label but
0 and 255, of every colour but black, of a grey value of 128 and more, or of an opacity of 128 and
more."""

Palette = Literal["auto", "index", "colour"]
"""Class of a pixel of a palette file: its index, the index of its colour in VOC's colour map, or
``auto``: the colour if all colours are VOC's in another order, else the index."""

_GREY_SPREAD = 48  # between the channels of grey pixels; FSS-1000's masks have up to 39
_FAINT = 8  # between the channels of a grey picture without areas
_ROUGH = 0.35  # share of pixels outside of areas from which a picture is a photograph
_CHOOSE = ", or choose their meaning with -d palette=index|colour"


class UnclearMaskError(FssbenchError):
    """The meaning of the values of a mask file is not known."""


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
    stored = decode(path, missing, StoredMask.of)
    try:
        return torch.from_numpy(np.array(_READERS[how](stored)))
    except UnclearError as unclear:
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
    stored = decode(path, missing, _deep_or_stored if deep else StoredMask.of)
    try:
        labels = _labels(stored, palette) if isinstance(stored, StoredMask) else stored
        return torch.from_numpy(np.array(labels, np.int32 if deep else np.uint8))
    except UnclearError as unclear:
        choose = _CHOOSE if isinstance(stored, StoredMask) and stored.picture.mode == "P" else ""
        raise UnclearMaskError(
            f"{path}: {unclear}; write class numbers as a grey file or in VOC's colours{choose} "
            "(docs/masks.md)"
        ) from unclear


def _deep_or_stored(picture: Image.Image) -> StoredMask | np.ndarray[Any, np.dtype[np.int32]]:
    """Return the samples of a grey file of 16 bits, (H, W), or else the decoded file."""
    if picture.format == "PNG" and picture.mode.startswith("I"):
        return np.asarray(turned(picture)).astype(np.int32)
    return StoredMask.of(picture)


def _labels(stored: StoredMask, palette: Palette) -> Array:
    if stored.lossy:
        raise UnclearError("a JPEG file does not hold exact class numbers")
    if stored.picture.mode == "P":
        return _palette_labels(stored, palette)
    if stored.picture.mode in ("1", "L"):
        return stored.samples
    colours = stored.drawn_colours()
    if colours is None or not colours <= _VOC_LABELS.keys():
        raise UnclearError(
            f"its mode is {stored.picture.mode} and its colours are not those of VOC's colour map"
        )
    return _by_colour(stored)


def _palette_labels(stored: StoredMask, palette: Palette = "auto") -> Array:
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
    raise UnclearError(
        f"palette index {index} has the colour {colour}"
        + (f", VOC's of class {_VOC_LABELS[colour]}" if colour in _VOC_LABELS else "")
        + ", and not all colours are VOC's"
    )


def _by_colour(stored: StoredMask) -> Array:
    colours = stored.colours.astype(np.int64)
    packed = colours[..., 0] << 16 | colours[..., 1] << 8 | colours[..., 2]
    found = np.zeros(packed.shape, np.uint8)
    for value in np.unique(packed).tolist():
        found[packed == value] = _VOC_LABELS[value >> 16, value >> 8 & 255, value & 255]
    return found


def _auto(stored: StoredMask) -> Array:
    """Return the foreground by the rule of docs/masks.md: alpha and colours must not differ."""
    alpha = stored.alpha
    if alpha is None:
        return _by_values(stored)
    constant = len(stored.drawn_colours() or ()) == 1
    if not alpha.any():
        if constant:
            return np.zeros_like(alpha)
        raise UnclearError("every pixel is transparent, but the colours differ")
    if alpha.min() == alpha.max():
        return _by_values(stored)
    opaque = foreground_of(alpha, lossy=False)
    if constant and stored.picture.mode != "P":
        return opaque
    try:
        values = _by_values(stored)
    except UnclearError:
        return opaque
    if ((values != opaque) & (values != IGNORE)).any():
        raise UnclearError("its opacity and its colours mark different pixels")
    return values


def _by_values(stored: StoredMask) -> Array:
    """Return the foreground by palette, colours or grey values, without transparency."""
    mode = stored.picture.mode
    if mode in ("1", "L"):
        return _grey_foreground(stored)
    if mode == "P":
        return _palette_foreground(stored)
    return _coloured(stored)


def _palette_foreground(stored: StoredMask) -> Array:
    used = stored.used_palette()
    first, distinct = used.get(0, _BLACK), len(set(used.values())) == len(used)
    if set(used) <= {0, 1} and first == _BLACK and used.get(1) != _VOID:
        return stored.samples
    if distinct and set(used) != {0} and all(len(set(colour)) == 1 for colour in used.values()):
        return foreground_of(stored.grey, lossy=False)
    if distinct and _BLACK in used.values() and first != _BLACK and len(used) == 2:
        return _coloured(stored)
    if first != _BLACK and distinct and first not in _VOC_LABELS:
        raise UnclearError(f"palette index 0 has the colour {first}, not black")
    return _object_labels(_palette_labels(stored))


def _object_labels(labels: Array) -> Array:
    values = values_of(labels)
    if not set(values) <= {0, 1, IGNORE} or (IGNORE in values and 1 not in values):
        raise UnclearError(
            f"its labels are {listed(values)}, where 0 is background, 1 the object and 255 ignored"
        )
    return labels


def _coloured(stored: StoredMask) -> Array:
    colours = stored.drawn_colours()
    drawn = set() if colours is None or stored.lossy else colours
    chromatic = {colour for colour in drawn if len(set(colour)) > 1}
    if len(drawn) == 2 and _BLACK in drawn and chromatic - {_VOID}:
        return _nonblack(stored)
    if chromatic and drawn <= _VOC_LABELS.keys():
        return _object_labels(_by_colour(stored))
    # Numbers of objects in dark colours; noise fills no areas.
    if chromatic and (areas := chromatic & _flat_colours(stored, drawn)):
        raise UnclearError(f"its colours are {listed(sorted({*areas, *drawn}))}")
    if _coloured_share(stored) <= (0 if drawn else 0.01):
        return foreground_of(stored.grey, stored.lossy)
    if colours is None:
        raise UnclearError(
            f"it has {_colour_count(stored)} colours: it is a photograph, or a drawing with soft "
            "edges"
        )
    raise UnclearError(f"its colours are {listed(sorted(colours))}")


def _coloured_share(stored: StoredMask, allowed: int = _GREY_SPREAD) -> float:
    """Return the share of pixels whose channels are more than `allowed` apart."""
    red, green, blue = np.moveaxis(stored.colours, -1, 0)  # faster than reducing the last axis
    lightest, darkest = np.maximum(red, green), np.minimum(red, green)
    spread = np.maximum(lightest, blue) - np.minimum(darkest, blue)
    return float((spread > allowed).mean())


def _colour_count(stored: StoredMask) -> int:
    return len(np.unique(stored.colours.reshape(-1, 3), axis=0))


def _grey_foreground(stored: StoredMask) -> Array:
    if stored.spread > 1:
        return _object_labels(stored.samples)
    return foreground_of(
        stored.grey if stored.picture.mode == "L" else stored.samples, stored.lossy
    )


def _flat_colours(stored: StoredMask, drawn: set[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Return the colours of a drawing that fill a square of 3 x 3 pixels."""
    ordered = sorted(drawn)
    numbers = np.zeros(stored.colours.shape[:2], np.uint8)
    for number, colour in enumerate(ordered):
        numbers[(stored.colours == colour).all(-1)] = number
    return {ordered[number] for number in flat_values(numbers)}


def _every_label(stored: StoredMask) -> Array:
    labels = _labels(stored, "auto")
    found: Array = np.where(labels == IGNORE, IGNORE, labels > 0).astype(np.uint8)
    return found


def _nonblack(stored: StoredMask) -> Array:
    brightest: Array = stored.colours.max(-1)
    if stored.drawn_colours() is None and 0 not in flat_values(brightest):
        raise UnclearError(f"it has {_colour_count(stored)} colours and no black area")
    return (brightest > 0).astype(np.uint8)


def _bright_pixels(stored: StoredMask) -> Array:
    grey = np.asarray(stored.picture.convert("RGB").convert("L"))
    coloured = stored.drawn_colours() is None and _coloured_share(stored, _FAINT) > 0.01
    if coloured and (~flat_squares(grey)).mean() > _ROUGH:
        raise UnclearError(f"it has {_colour_count(stored)} colours: it is a photograph")
    return (grey >= HALF).astype(np.uint8)


def _opaque(stored: StoredMask) -> Array:
    if not stored.picture.has_transparency_data:
        raise UnclearError("it has no transparency")
    return (np.asarray(stored.picture.convert("RGBA"))[..., 3] >= HALF).astype(np.uint8)


_READERS = {
    "auto": _auto,
    "labels": _every_label,
    "nonblack": _nonblack,
    "bright": _bright_pixels,
    "alpha": _opaque,
}
