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

from fssbench.episodes.annotations import support_mask
from fssbench.episodes.episode import Episode
from fssbench.evaluation.run import Run
from fssbench.inference.chunk_loader import target_of
from fssbench.inference.overlay import PREDICTION, SUPPORT, WAYS, painted
from fssbench.results.rows import rows_of

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
                own = rows_of(rows, position, len(episode.targets))
                ious = 100 * own["intersection_fg"] / own["union_fg"].clip(lower=1)
                panel = draw_episode(run, episode, predictions[position], ious.tolist())
                folder = run.folder / "panels"
                folder.mkdir(exist_ok=True)
                shown = [target for target in episode.targets if target.support]
                classes = [run.manifest.class_name(target.class_id) for target in shown]
                name = "-".join(classes).replace(" ", "-")
                panel.save(folder / f"{episode.index:05d}-{name}.png")


def draw_episode(
    run: Run, episode: Episode, prediction: Tensor, ious: Sequence[float]
) -> Image.Image:
    """Draw one row of tiles: supports with masks, query, truth, the matcher's maps, prediction.

    Each way of an episode of several ways has its own colour in all tiles.

    Args:
        run: evaluation of the episode.
        episode: the episode.
        prediction: predicted mask or label map, at the scored size.
        ious: IoU of each way, in percent.
    """
    dataset, ways = run.dataset, episode.ways()
    colours = [WAYS[n % len(WAYS)] for n in range(len(ways))]
    shown, found = ([SUPPORT], [PREDICTION]) if len(ways) == 1 else (colours, colours)
    weaker = "" if dataset.support_kind == "mask" else f" ({dataset.support_kind})"
    tiles = [
        (
            _tile(painted(dataset.image(key[0]), support_mask(dataset, *key), colour)),
            f"support: {dataset.classes[key[1]]}{weaker}",
        )
        for way, colour in zip(ways, shown, strict=True)
        for key in way.supports()
    ]
    query = dataset.image(episode.query)
    truth = target_of(episode, dataset, None, "original", "ignore")
    name = ", ".join(dataset.classes[way.class_id] for way in ways)
    tiles.append((_tile(painted(query, truth * 0)), f"query {episode.query}"))
    tiles.append((_tile(painted(query, truth, *colours)), f"truth: {name}"))
    for way in ways:
        maps = {} if run.maps is None or not way.support else run.maps.of(way)
        of = f" ({dataset.classes[way.class_id]})" if len(ways) > 1 else ""
        tiles += [(_heat(query, each), f"{caption}{of}") for caption, each in maps.items()]
    marked = prediction.cpu().to(truth.dtype)
    if marked.shape != truth.shape:  # scored at the encoder's size
        query = _resized(query, marked.shape[0], marked.shape[1])
    scores = ", ".join(f"{iou:.1f}" for iou in ious)
    tiles.append((_tile(painted(query, marked, *found)), f"prediction: IoU {scores}"))
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
