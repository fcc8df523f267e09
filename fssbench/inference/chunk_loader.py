"""Loading of episodes as tensors: decoding and resizing in loader processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE, Dataset
from fssbench.data.geometry import Geometry
from fssbench.episodes.annotations import support_mask
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, lacks_memory
from fssbench.inference.label_maps import merged
from fssbench.runtime.loading import load_ahead

MASK_BYTES = 64 << 20
"""Bytes of support masks that each loader process caches."""


@attrs.frozen(kw_only=True)
class ChunkTask:
    """The images and masks to load for one chunk.

    Attributes:
        chunk: number of the chunk.
        episodes: episodes of the chunk, in the visiting order.
        images: (image id, class id or None) of the images that must be encoded. With a class id,
            the mask of that class is loaded too, to hide the background before encoding.
    """

    chunk: int
    episodes: tuple[Episode, ...]
    images: tuple[tuple[str, int | None], ...]


@attrs.frozen(kw_only=True)
class ChunkData:
    """The loaded tensors of one chunk.

    Attributes:
        task: task that was loaded.
        images: uint8 (N, 3, S, S), one for each of ``task.images``.
        keep: uint8 (S, S) mask of each image whose background is hidden, else None.
        support_masks: uint8 (E, K, S, S); for N ways with supports (E * N, K, S, S), the ways of an
            episode after each other.
        targets: uint8 (H, W) of each query, at the scored size; see `target_of`.
    """

    task: ChunkTask
    images: Tensor
    keep: list[Tensor | None]
    support_masks: Tensor
    targets: list[Tensor]

    def pin_memory(self) -> ChunkData:
        """Return the same data in pinned memory."""
        return attrs.evolve(
            self,
            images=self.images.pin_memory(),
            keep=[None if mask is None else mask.pin_memory() for mask in self.keep],
            support_masks=self.support_masks.pin_memory(),
            targets=[target.pin_memory() for target in self.targets],
        )


def target_of(
    episode: Episode, dataset: Dataset, geometry: Geometry | None, score_size: str, void: str
) -> Tensor:
    """Return the ground-truth mask, or label map, that an episode's prediction is scored against.

    Args:
        episode: episode with the query and its class.
        dataset: dataset that holds the mask.
        geometry: resizing rule, for scoring at the input size; otherwise it may be None.
        score_size: ``original`` or ``input``, see `ProtocolSpec`.
        void: ``ignore`` or ``background``, see `ProtocolSpec`.

    Returns:
        uint8 (H, W) of 0, 1 and 255, at the scored size; of 0 to N and 255 for N ways.
    """
    class_ids = [target.class_id for target in episode.targets]
    masks = [dataset.mask(episode.query, class_id) for class_id in class_ids]
    target = masks[0] if len(masks) == 1 else merged(masks, class_ids)
    if void == "background":
        target = target.masked_fill(target == IGNORE, 0)
    return target if geometry is None or score_size == "original" else geometry.mask(target)


@contextlib.contextmanager
def naming_lack_of_memory(task: ChunkTask) -> Iterator[None]:
    """Raise a lack of memory in a block as an `FssbenchError` that names the task's episodes."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise FssbenchError(
            f"out of memory while loading episode {task.episodes[0].index} and the following "
            "ones; run the same command again with fewer --workers to resume"
        ) from error


@attrs.define(eq=False)
class _ChunkLoader:
    """The loading of a chunk, with a cache of support masks in each process."""

    dataset: Dataset
    geometry: Geometry
    score_size: str
    void: str
    _masks: dict[tuple[str, int], Tensor] = attrs.field(factory=dict, init=False)

    def __call__(self, task: ChunkTask) -> ChunkData:
        geometry, dataset = self.geometry, self.dataset
        with naming_lack_of_memory(task):
            images = [geometry.image(dataset.image(image_id)) for image_id, _ in task.images]
            return ChunkData(
                task=task,
                images=torch.stack(images) if images else torch.empty(0, dtype=torch.uint8),
                keep=[None if c is None else self._mask(i, c) for i, c in task.images],
                support_masks=torch.stack(
                    [
                        torch.stack([self._mask(*key) for key in way.supports()])
                        for episode in task.episodes
                        for way in episode.ways()
                        if way.support
                    ]
                ),
                targets=[
                    target_of(episode, dataset, geometry, self.score_size, self.void)
                    for episode in task.episodes
                ],
            )

    def _mask(self, image_id: str, class_id: int) -> Tensor:
        """Return a mask at the encoder's size, cached because supports recur."""
        key = image_id, class_id
        if key not in self._masks:
            mask = self.geometry.mask(support_mask(self.dataset, image_id, class_id))
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
        tasks: tasks to load; an iterator is advanced whenever a loader process is free.
        dataset: dataset to load from.
        geometry: resizing rule.
        score_size: ``original`` or ``input``, see `ProtocolSpec`.
        workers: number of loader processes; 0 loads in this process.
        void: ``ignore`` or ``background``, see `ProtocolSpec`.
        pin: True if tensors are in pinned memory.

    Raises:
        FssbenchError: an image or mask cannot be read, or a loader process died.
    """
    yield from load_ahead(
        _ChunkLoader(dataset, geometry, score_size, void),
        tasks,
        workers=workers,
        pin=pin,
        advice="run the same command again to resume",
    )
