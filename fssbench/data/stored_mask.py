"""The stored picture of a mask file and its values."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from PIL import Image

from fssbench.data.images import turned

Array = np.ndarray[Any, np.dtype[np.uint8]]

_NAMED = 8  # values or colours in an error
_COLOURS = 64  # of a drawing; a file with more is a photograph or has soft edges
_LOSSY = ("JPEG", "MPO")
_SPREAD = {"L;2": 85, "L;4": 17}  # factor by which Pillow multiplies samples of fewer than 8 bits


class UnclearError(Exception):
    """The meaning of values is not known; the file is added by the caller."""


@attrs.frozen(eq=False)
class StoredMask:
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
    def of(cls, picture: Image.Image) -> StoredMask:
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
            for index in values_of(self.samples)
        }

    def drawn_colours(self) -> set[tuple[int, ...]] | None:
        """Return the RGB colours, or None if there are more than in a drawing."""
        found = self.picture.convert("RGB").getcolors(_COLOURS)
        return None if found is None else {colour for _, colour in found}  # type: ignore[misc]


def values_of(samples: Array) -> list[int]:
    """Return the values that occur, in ascending order."""
    found: list[int] = np.flatnonzero(np.bincount(samples.ravel(), minlength=256)).tolist()
    return found


def listed(values: list[Any]) -> str:
    """Return the first values and the number of the others, for an error."""
    more = len(values) - _NAMED
    return ", ".join(map(str, values[:_NAMED])) + (f" and {more} more" if more > 0 else "")
