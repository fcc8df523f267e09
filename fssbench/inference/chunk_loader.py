"""From episodes to tensors: decoding and resizing, in loader processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fssbench.data.dataset import IGNORE, Dataset
from fssbench.data.geometry import Geometry
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, lacks_memory

T = TypeVar("T")

MASK_BYTES = 64 << 20
"""Support masks that each loader process keeps."""


@attrs.frozen(kw_only=True)
class ChunkTask:
    """What to load for a chunk.

    Attributes:
        chunk: its number.
        episodes: its episodes, in manifest order.
        images: (image id, class id or None) of the images that must be encoded. With a class id,
            the class's mask comes along: the background is to be hidden before encoding.
    """

    chunk: int
    episodes: tuple[Episode, ...]
    images: tuple[tuple[str, int | None], ...]


@attrs.frozen(kw_only=True)
class ChunkData:
    """What was loaded.

    Attributes:
        task: what was asked for.
        images: uint8 (N, 3, S, S), one for each of ``task.images``.
        keep: uint8 (S, S) mask of each image whose background is hidden, else None.
        support_masks: uint8 (E, K, S, S).
        targets: uint8 (H, W) of each query, at the size that is scored.
    """

    task: ChunkTask
    images: Tensor
    keep: list[Tensor | None]
    support_masks: Tensor
    targets: list[Tensor]

    def pin_memory(self) -> ChunkData:
        """The same in memory from which a GPU copies without waiting."""
        return attrs.evolve(
            self,
            images=self.images.pin_memory(),
            keep=[None if mask is None else mask.pin_memory() for mask in self.keep],
            support_masks=self.support_masks.pin_memory(),
            targets=[target.pin_memory() for target in self.targets],
        )


def target_of(
    episode: Episode, dataset: Dataset, geometry: Geometry, score_size: str, void: str
) -> Tensor:
    """What an episode's prediction is scored against.

    Args:
        episode: which query and class.
        dataset: from where.
        geometry: how images are resized, for scoring at the input size.
        score_size: ``original`` or ``input``, see `ProtocolSpec`.
        void: ``ignore`` or ``background``, see `ProtocolSpec`.

    Returns:
        uint8 (H, W) of 0, 1 and 255, at the size that is scored.
    """
    target = dataset.mask(episode.query, episode.class_id)
    if void == "background":
        target = target.masked_fill(target == IGNORE, 0)
    return target if score_size == "original" else geometry.mask(target)


class _Chunks(TorchDataset["ChunkData | FssbenchError"]):
    """Indexed by tasks themselves, which are made when they are asked for."""

    def __init__(
        self,
        dataset: Dataset,
        geometry: Geometry,
        score_size: str,
        void: str,
    ) -> None:
        self.dataset = dataset
        self.geometry = geometry
        self.score_size = score_size
        self.void = void
        self._masks: dict[tuple[str, int], Tensor] = {}

    def __getitem__(self, task: ChunkTask) -> ChunkData | FssbenchError:
        try:
            return self._load(task)
        except FssbenchError as error:
            # A raised error would reach the user as a worker's traceback.
            return error
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            return FssbenchError(
                f"out of memory while episode {task.episodes[0].index} and those after it were "
                "loaded; run the same command again to go on, with fewer --workers"
            )

    def _load(self, task: ChunkTask) -> ChunkData:
        geometry, dataset = self.geometry, self.dataset
        images = [geometry.image(dataset.image(image_id)) for image_id, _ in task.images]
        targets = []
        for episode in task.episodes:
            targets.append(target_of(episode, dataset, geometry, self.score_size, self.void))
        return ChunkData(
            task=task,
            images=torch.stack(images) if images else torch.empty(0, dtype=torch.uint8),
            keep=[None if c is None else self._mask(image_id, c) for image_id, c in task.images],
            support_masks=torch.stack(
                [torch.stack([self._mask(*key) for key in e.supports()]) for e in task.episodes]
            ),
            targets=targets,
        )

    def _mask(self, image_id: str, class_id: int) -> Tensor:
        """A mask at the encoder's size; supports return, so the last ones are kept."""
        key = image_id, class_id
        if key not in self._masks:
            mask = self.geometry.mask(self.dataset.mask(image_id, class_id))
            while len(self._masks) * mask.numel() >= MASK_BYTES:
                del self._masks[next(iter(self._masks))]
            self._masks[key] = mask
        return self._masks[key]


def load_chunks(
    tasks: Iterable[ChunkTask],
    dataset: Dataset,
    geometry: Geometry,
    *,
    score_size: str,
    workers: int,
    void: str = "ignore",
    pin: bool = False,
) -> Iterator[ChunkData]:
    """Load chunks in order, ahead of their use.

    Args:
        tasks: what to load; an iterator is asked for the next one when a loader is free.
        dataset: from where.
        geometry: how images are resized.
        score_size: ``original`` or ``input``, see `ProtocolSpec`.
        workers: loader processes; 0 loads in this one.
        void: ``ignore`` or ``background``, see `ProtocolSpec`.
        pin: load into memory from which a GPU copies without waiting.

    Raises:
        FssbenchError: an image or mask cannot be read, or a loader process died.
    """
    loader = DataLoader(
        _Chunks(dataset, geometry, score_size, void),
        batch_size=None,
        sampler=tasks,
        num_workers=workers,
        pin_memory=pin,
    )
    yield from unwrapped(loader, go_on="run the same command again to go on")


def unwrapped(loader: Iterable[T | FssbenchError], *, go_on: str) -> Iterator[T]:
    """What a loader gives, where its processes hand errors over as values.

    Args:
        loader: a torch ``DataLoader`` of such data.
        go_on: what to do when one of its processes dies, for the message.

    Raises:
        FssbenchError: one was handed over, or a loader process died.
    """
    try:
        for data in loader:
            if isinstance(data, FssbenchError):
                raise data
            yield data
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise FssbenchError(
            f"a loader process died ({reason}); {go_on}, with fewer --workers if memory is short"
        ) from error
