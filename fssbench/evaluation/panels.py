"""Pictures of episodes: supports with their masks, query, truth, maps, prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import pandas
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from fssbench.episodes.episode import Episode
from fssbench.evaluation.run import Run
from fssbench.inference.overlay import PREDICTION, SUPPORT, TRUTH, painted

HEIGHT = 240
"""Height of a tile, in pixels."""
_CAPTION = 18
_GAP = 6


class Panels:
    """An observer that draws some episodes into ``panels/`` of the run directory.

    Args:
        run: evaluation to draw.
        count: number of episodes, spread evenly over the manifest.
    """

    def __init__(self, run: Run, count: int) -> None:
        total = len(run.manifest.episodes)
        count = min(count, total)
        self._wanted = {i * total // count for i in range(count)} if count else set()

    def fssbench_episodes_measured(
        self, run: Run, episodes: Sequence[Episode], rows: pandas.DataFrame,
        predictions: Sequence[Tensor],
    ) -> None:  # fmt: skip
        """Draw the selected episodes of a chunk."""
        for position, episode in enumerate(episodes):
            if episode.index in self._wanted:
                row = rows.iloc[position]
                iou = 100 * row["intersection_fg"] / max(1, row["union_fg"])
                panel = draw_episode(run, episode, predictions[position], float(iou))
                folder = run.folder / "panels"
                folder.mkdir(exist_ok=True)
                name = run.manifest.class_name(episode.class_id).replace(" ", "-")
                panel.save(folder / f"{episode.index:05d}-{name}.png")


def draw_episode(run: Run, episode: Episode, prediction: Tensor, iou: float) -> Image.Image:
    """Draw one row of tiles: supports with masks, query, truth, the matcher's maps, prediction."""
    dataset = run.dataset
    tiles = [
        (
            _tile(painted(dataset.image(image_id), dataset.mask(image_id, class_id), SUPPORT)),
            f"support: {dataset.classes[class_id]}",
        )
        for image_id, class_id in episode.supports()
    ]
    query = dataset.image(episode.query)
    truth = dataset.mask(episode.query, episode.class_id)
    name = dataset.classes[episode.class_id]
    tiles.append((_tile(painted(query, truth * 0, TRUTH)), f"query {episode.query}"))
    tiles.append((_tile(painted(query, truth, TRUTH)), f"truth: {name}"))
    maps = {} if run.maps is None else run.maps.of(episode)
    tiles += [(_heat(query, each), caption) for caption, each in maps.items()]
    marked = prediction.cpu().to(truth.dtype)
    if marked.shape != truth.shape:  # scored at the encoder's size
        query = _resized(query, marked.shape[0], marked.shape[1])
    tiles.append((_tile(painted(query, marked, PREDICTION)), f"prediction: IoU {iou:.1f}"))
    return _row(tiles)


def _heat(image: Tensor, heat: Tensor) -> Image.Image:
    """Draw a map over a greyscale image, from blue (minimum) to red (maximum)."""
    values = heat.double().numpy()
    spread = float(values.max() - values.min())
    level = (values - values.min()) / spread if spread > 0 else numpy.zeros_like(values)
    # Three overlapping ramps: blue, green, red.
    colours = numpy.stack([1.5 - numpy.abs(4 * level - c) for c in (3, 2, 1)], -1).clip(0, 1)
    grey = image.permute(1, 2, 0).numpy().astype(numpy.float64).mean(-1, keepdims=True)
    return _tile(0.5 * grey + 0.5 * 255 * colours)


def _tile(pixels: NDArray[Any]) -> Image.Image:
    picture = Image.fromarray(pixels.round().astype(numpy.uint8))
    return picture.resize((max(1, round(HEIGHT * picture.width / picture.height)), HEIGHT))


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height))
    return torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)


def _row(tiles: list[tuple[Image.Image, str]]) -> Image.Image:
    width = sum(tile.width for tile, _ in tiles) + _GAP * (len(tiles) + 1)
    row = Image.new("RGB", (width, HEIGHT + _CAPTION + 2 * _GAP), "white")
    pen = ImageDraw.Draw(row)
    left = _GAP
    for tile, caption in tiles:
        while pen.textlength(caption) > tile.width and len(caption) > 4:
            caption = caption[:-2].rstrip(".") + "."
        pen.text((left, _GAP // 2), caption, fill="black")
        row.paste(tile, (left, _CAPTION + _GAP))
        left += tile.width + _GAP
    return row
