"""Run-length masks of pycocotools, and their conversion from COCO's segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as pycocotools_mask

from fssbench.data.cache import Array
from fssbench.errors import FssbenchError

rle: Any = pycocotools_mask  # without type annotations

FARTHEST = 1e5
"""Upper bound of the absolute value of polygon coordinates."""
LONGEST = 1e6
"""Upper bound of the outline of a polygon; the memory for drawing grows with its length."""
_LAST_DIGIT = 60
"""Maximum bit offset of a digit in a compressed run length."""

Rle = dict[str, Any]
"""pycocotools' compressed mask: ``{"size": [H, W], "counts": bytes}``."""


def union(masks: list[Rle], size: list[int]) -> Rle:
    """Return the union of masks of the same size, [H, W]."""
    return rle.merge(masks) if masks else {"size": size, "counts": b""}


def segmentation_mask(
    annotation: Mapping[str, Any], size: list[int], path: Path
) -> tuple[bytes, int]:
    """Return the compressed mask, empty without a polygon, and the number of skipped polygons."""
    segmentation = annotation["segmentation"]
    if not isinstance(segmentation, list):
        try:
            return run_lengths(segmentation, size)["counts"], 0
        except (TypeError, ValueError) as error:
            raise FssbenchError(
                f"{path}: segmentation of annotation {annotation.get('id')}: {error}; "
                "correct the annotation, or take the original file"
            ) from error
    if not segmentation:  # an object with a box only
        return b"", 1
    if all(isinstance(number, int | float) for number in segmentation):
        segmentation = [segmentation]  # one polygon without the list around it
    good = [points for part in segmentation if (points := _polygon(part)) is not None]
    masks = rle.frPyObjects(good, *size) if good else []
    return union(masks, size)["counts"], len(segmentation) - len(good)


def _polygon(points: Any) -> Array | None:
    """Return the corners x, y, x, y, … as float (2n,), or None if they are invalid."""
    try:
        corners = np.array(points, np.float64)
    except (TypeError, ValueError):
        return None
    whole = corners.ndim == 1 and len(corners) >= 6 and len(corners) % 2 == 0
    if not whole or not (np.abs(corners) < FARTHEST).all():  # False for NaN
        return None
    if len(corners) * np.abs(corners).max() < LONGEST:  # the outline cannot be longer
        return corners
    x, y = corners[::2], corners[1::2]
    steps = np.maximum(np.abs(x - np.roll(x, 1)), np.abs(y - np.roll(y, 1)))
    return corners if steps.sum() < LONGEST else None


def run_lengths(segmentation: Any, size: list[int]) -> Rle:
    """Return a run-length mask for pycocotools, which does not validate its input itself.

    Args:
        segmentation: ``{"size": [H, W], "counts": …}``, compressed or not.
        size: expected size, [H, W].

    Raises:
        TypeError: the segmentation is not run-length encoded.
        ValueError: its size differs, or its run lengths do not add up to the size.
    """
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise TypeError("is neither polygons nor run lengths")
    if list(segmentation["size"]) != size:
        raise ValueError(f"has the size {segmentation['size']}, its image {size}")
    counts = segmentation["counts"]
    if isinstance(counts, str | bytes):
        counts = _expand(counts)
    if not isinstance(counts, list):
        raise TypeError("has run lengths that are neither a list nor a text")
    if not all(type(count) is int for count in counts):
        raise TypeError("has run lengths that are no whole numbers")
    if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
        raise ValueError(f"has run lengths that do not add up to {size[0] * size[1]} pixels")
    mask: Rle = rle.frPyObjects({"size": size, "counts": counts}, *size)
    return mask


def _expand(text: str | bytes) -> list[int]:
    """Decode run lengths of pycocotools: 5-bit digits of differences to the count before last."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode() if isinstance(text, str) else text:
        digit = code - ord("0")
        if shift > _LAST_DIGIT:
            raise ValueError("has a run length that is no number of pixels")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        value -= (1 << shift) if digit & 16 else 0
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts
