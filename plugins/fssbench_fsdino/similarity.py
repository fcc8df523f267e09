"""Self-similarity of features, to find the block of an encoder that agrees with a reference.

Zhuo et al., FS-DINO, arXiv 2504.15669v2, section 2.1, equation 1 and figure 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from fssbench import Backbone, FssbenchError, Geometry
from fssbench.nn import correlation

TILE = 120
"""Side of a drawn map, in pixels."""
_GAP, _CAPTION = 4, 16

Point = tuple[float, float]
"""(x, y) as shares of width and height, from the top left corner."""


@attrs.frozen(kw_only=True)
class Agreement:
    """Agreement of a layer's self-similarities with those of the reference.

    Attributes:
        layer: name of the layer.
        mean: mean over images of the correlation coefficient of both encoders' similarities of all
            pairs of positions; 1 is equality up to scale and offset.
        images: coefficient of each image, in the order of the images.
    """

    layer: str
    mean: float
    images: tuple[float, ...]


@torch.inference_mode()
def layer_features(
    backbone: Backbone, image: Tensor, layers: Sequence[str], size: int | None = None
) -> dict[str, Tensor]:
    """Return the features of one image, resized to a square.

    Args:
        backbone: encoder.
        image: uint8 (3, H, W).
        layers: names of the layers.
        size: side of the square; None for the encoder's own.

    Returns:
        For each layer (C, h, w).
    """
    square = Geometry(size or backbone.info.image_size).image(image).float() / 255
    device = backbone.mean.device
    features = backbone(square[None].to(device), layers)
    return {name: maps[0].float().cpu() for name, maps in features.items()}


def self_similarity(features: Tensor) -> Tensor:
    """Return the cosines of all pairs of positions (equation 1), (C, h, w) to (h, w, h, w)."""
    return correlation(features[None], features[None])[0]


def similarity_map(features: Tensor, point: Point) -> Tensor:
    """Return the cosines of all positions with that of a point, (C, h, w) to (h, w)."""
    height, width = features.shape[1:]
    column, row = int(point[0] * width), int(point[1] * height)
    return self_similarity(features)[min(row, height - 1), min(column, width - 1)]


def agreement(features: Tensor, reference: Tensor) -> float:
    """Return the agreement of two encoders' self-similarities.

    The paper compares maps visually; here agreement is Pearson's correlation of the similarities of
    all pairs of different positions, at the coarser of both grids.

    Args:
        features: features of one encoder, (C, h, w).
        reference: features of the other, (D, h', w').
    """
    grid = tuple(min(a, b) for a, b in zip(features.shape[1:], reference.shape[1:], strict=True))
    values = []
    for maps in (features, reference):
        if tuple(maps.shape[1:]) != grid:
            maps = functional.interpolate(
                maps[None], grid, mode="bilinear", align_corners=False, antialias=True
            )[0]
        similar = self_similarity(maps).flatten(2).flatten(0, 1).double()
        above = torch.triu_indices(len(similar), len(similar), offset=1)
        values.append(similar[above[0], above[1]])
    return float(torch.corrcoef(torch.stack(values))[0, 1].nan_to_num(0.0))


def rank_layers(
    features: Sequence[Mapping[str, Tensor]], references: Sequence[Tensor]
) -> list[Agreement]:
    """Sort layers by their agreement with a reference, the best one first.

    Args:
        features: features of each image, by layer.
        references: features of each image of the reference's layer.

    Raises:
        FssbenchError: there is no image.
    """
    if not features:
        raise FssbenchError("similarity: give at least one image")
    pairs = list(zip(features, references, strict=True))
    ranked = []
    for layer in features[0]:
        each = tuple(agreement(maps[layer], reference) for maps, reference in pairs)
        ranked.append(Agreement(layer=layer, mean=math.fsum(each) / len(each), images=each))
    return sorted(ranked, key=lambda entry: -entry.mean)


def draw_similarity(
    image: Tensor, points: Sequence[Point], maps: Mapping[str, Tensor]
) -> Image.Image:
    """Draw figure 2: a row for each point, with the image and a tile for each encoder's layer.

    Args:
        image: uint8 (3, H, W).
        points: points of the similarity maps, drawn as red dots.
        maps: features (C, h, w) by caption, in order.
    """
    width = (len(maps) + 1) * (TILE + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(points) * (TILE + _GAP) + _GAP + _CAPTION), "white")
    pen = ImageDraw.Draw(sheet)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((TILE, TILE))
    for column, caption in enumerate(("image", *maps)):
        pen.text((_GAP + column * (TILE + _GAP), 2), caption, fill="black")
    for row, point in enumerate(points):
        top = _CAPTION + row * (TILE + _GAP)
        marked = picture.copy()
        x, y = point[0] * TILE, point[1] * TILE
        ImageDraw.Draw(marked).ellipse((x - 3, y - 3, x + 3, y + 3), fill="red")
        sheet.paste(marked, (_GAP, top))
        for column, features in enumerate(maps.values(), start=1):
            tile = _coloured(similarity_map(features, point))
            sheet.paste(tile.resize((TILE, TILE)), (_GAP + column * (TILE + _GAP), top))
    return sheet


def _coloured(similar: Tensor) -> Image.Image:
    """Colour similarities from the lowest (blue) through white to the highest (red)."""
    values = similar.numpy().astype(np.float64)
    values -= values.min()
    share = values / (values.max() or 1.0)
    rising, falling = np.clip(2 * share, 0, 1), np.clip(2 - 2 * share, 0, 1)
    pixels = np.stack([rising, np.minimum(rising, falling), falling], -1)
    return Image.fromarray((255 * pixels).round().astype(np.uint8))
