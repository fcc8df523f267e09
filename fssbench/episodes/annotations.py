"""Masks of supports as a protocol shows them: whole, or drawn from the mask as weaker annotations.

The pixels are found with integers and `Draw` alone, so that they are the same on every machine and
with every release of NumPy. Their rules are part of the protocols that name them: never change one.
Number of points, number of strokes, their segments, lengths and turns are those that VRP-SAM's
code has for testing, in images of 512 x 512 pixels (github.com/syp2ysy/VRP-SAM, commit 9c53a6a,
``model/VRP_encoder.py`` and ``common/utils.py``); docs/protocols.md lists the differences.
"""

from __future__ import annotations

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.specs import SupportKind

Plane = NDArray[numpy.bool_]

POINTS = 20
STROKES = 9
_SIDE = 512
_LONGEST = 20  # pixels of a segment, for a longer side of _SIDE
_TURN = 2  # most steps of 1/32 of a circle between two segments

# Unit vectors (row, column) of 32 headings, in 1/1024 pixels: literals, since the last bit of a
# computed cosine depends on the machine.
_QUARTER = [1024, 1004, 946, 851, 724, 569, 392, 200, 0]
_HALF = [*_QUARTER, *(-each for each in _QUARTER[-2::-1])]
_COSINES = numpy.array([*_HALF, *_HALF[-2:0:-1]])
_HEADINGS = numpy.stack([numpy.roll(_COSINES, 8), _COSINES], axis=1)


def support_mask(dataset: Dataset, image_id: str, class_id: int) -> Tensor:
    """Return the annotation of a support, as the dataset's `support_kind` asks for.

    Args:
        dataset: dataset of the image, from `fssbench.build.protocol_dataset`.
        image_id: id of the support image.
        class_id: id of the class that it shows.

    Returns:
        uint8 (H, W) at the image's original size: the mask of 0, 1 and 255; or a weaker annotation
        of 0 and 1, with at least one pixel of 1 if the mask has one.
    """
    mask = dataset.mask(image_id, class_id)
    if dataset.support_kind == "mask":
        return mask
    return weaker(mask, dataset.support_kind, image_id, class_id)


def weaker(mask: Tensor, kind: SupportKind, image_id: str, class_id: int) -> Tensor:
    """Return a weaker annotation that is drawn from a mask, uint8 (H, W) of 0 and 1.

    Pixels of 255 are treated as background: around the objects of PASCAL VOC they would show the
    outline.

    Args:
        mask: uint8 (H, W) of 0, 1 and 255.
        kind: ``box``, ``point``, ``scribble``, or ``no-mask`` for the whole image.
        image_id: id of the image, which seeds the draw.
        class_id: id of the class, which seeds the draw.
    """
    inside = mask.numpy() == 1
    if inside.any():
        draw = Draw(f"support-{kind}", image_id, class_id)
        rules = {"box": _box, "point": _points, "scribble": _scribbles, "no-mask": _whole}
        inside = rules[kind](inside, draw)
    return torch.from_numpy(inside.astype(numpy.uint8))


def _whole(inside: Plane, draw: Draw) -> Plane:
    del draw
    return numpy.ones_like(inside)


def _box(inside: Plane, draw: Draw) -> Plane:
    """Fill the tight box around all pixels of a class; nothing is drawn."""
    del draw
    rows, columns = (numpy.flatnonzero(inside.any(axis)) for axis in (1, 0))
    box = numpy.zeros_like(inside)
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
    return box


def _points(inside: Plane, draw: Draw) -> Plane:
    return _brushed(inside, _pixels(inside, draw, POINTS))


def _scribbles(inside: Plane, draw: Draw) -> Plane:
    """Draw strokes that start inside, each a chain of segments with a slowly turning heading."""
    longest = max(1, _LONGEST * max(inside.shape) // _SIDE)
    centres = []
    for start in _pixels(inside, draw, STROKES):
        position, heading = 1024 * start, draw.below(32)
        for _ in range(10 + draw.below(20)):
            heading += draw.below(2 * _TURN + 1) - _TURN
            steps = numpy.arange(draw.below(longest + 1) + 1)
            centres.append(position + steps[:, None] * _HEADINGS[heading % 32])
            position = centres[-1][-1]
    return _brushed(inside, (numpy.concatenate(centres) + 512) >> 10)


def _pixels(inside: Plane, draw: Draw, most: int) -> NDArray[numpy.int64]:
    """Return different pixels (row, column) of a class, uniformly drawn."""
    pixels = numpy.argwhere(inside)
    return pixels[draw.distinct(range(len(pixels)), min(most, len(pixels)))]


def _brushed(inside: Plane, centres: NDArray[numpy.int64]) -> Plane:
    """Return the pixels of a class that are in a disc around one of the centres."""
    radius = max(1, max(inside.shape) // 128)
    span = numpy.arange(-radius, radius + 1)
    disc = numpy.stack(numpy.meshgrid(span, span), axis=-1).reshape(-1, 2)
    disc = disc[(disc**2).sum(1) <= radius**2]
    pixels = (centres[:, None] + disc).reshape(-1, 2)
    pixels = pixels[((pixels >= 0) & (pixels < inside.shape)).all(1)]
    brushed = numpy.zeros_like(inside)
    brushed[tuple(pixels.T)] = True
    return brushed & inside
