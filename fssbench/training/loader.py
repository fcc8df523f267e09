"""From samples to tensors: decoding and augmenting, in loader processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from fssbench.data.dataset import IGNORE, Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.inference.chunk_loader import raise_errors
from fssbench.training.augment import Augmentation
from fssbench.training.samples import Sample
from fssbench.training.stage import Feed


@attrs.frozen(kw_only=True, eq=False)
class LoadedBatch:
    """What one process trains on between two backward passes.

    Images that look the same in several places are held once, so they are encoded once.

    Attributes:
        samples: what was asked for.
        images: uint8 (U, 3, S, S).
        keep: uint8 (S, S) mask of each image whose background is hidden before encoding, or None.
        places: int64 (B, 1 + K), or (B, 1) without supports: which of `images` is shown; the query
            comes first.
        masks: uint8 (B, 1 + K, S, S) class masks, or labels; empty for plain images.
        class_ids: int64 (B,) of episodes; empty otherwise.
        labels: uint8 (B, S, S) of the queries of episodes, if they are wanted; otherwise None.
        names: ids of `images`, if their features are to be kept; otherwise None.
    """

    samples: tuple[Sample, ...]
    images: Tensor
    keep: list[Tensor | None]
    places: Tensor
    masks: Tensor
    class_ids: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None

    def pin_memory(self) -> LoadedBatch:
        """The same in memory from which a GPU copies fast; torch's loader asks for it."""
        return attrs.evolve(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())


@attrs.frozen(kw_only=True, eq=False)
class BatchLoader:
    """Loads batches of one training.

    Attributes:
        dataset: from where.
        feed: what a sample is.
        augmentation: what happens to it.
        hide: the background of supports is hidden before encoding.
        classes: base classes, ascending; the n-th is n + 1 in labels.
        key: what augmentation is keyed by, beside epoch and sample.
        marks: the queries of episodes come with all base classes marked, too.
        keeps: features of images are kept, since these always look the same.
    """

    dataset: Dataset
    feed: Feed
    augmentation: Augmentation
    hide: bool
    classes: tuple[int, ...]
    key: tuple[str | int, ...]
    marks: bool = False
    keeps: bool = False

    def load(self, epoch: int, first: int, samples: Sequence[Sample]) -> LoadedBatch:
        """Load consecutive samples of an epoch.

        Args:
            epoch: its number.
            first: position of the first one in the epoch.
            samples: they.
        """
        unique: dict[tuple[object, ...], int] = {}
        images: list[Tensor] = []
        keep: list[Tensor | None] = []
        places, masks, labels = [], [], []
        for index, sample in enumerate(samples, start=first):
            for position, (image_id, class_id) in enumerate(_shown(sample)):
                draw = Draw("augment", *self.key, epoch, index, position)
                marked = self.marks and class_id is not None and position == 0
                image, planes = self._augmented(image_id, class_id, draw, marked=marked)
                if marked:
                    labels.append(planes.pop())
                hidden = self.hide and position > 0
                key: tuple[object, ...] = (image_id, class_id if hidden else None)
                if self.augmentation.random:
                    key += (index, position)
                if key not in unique:
                    unique[key] = len(images)
                    images.append(image)
                    keep.append(planes[0] if hidden else None)
                places.append(unique[key])
                masks += planes
        size = self.augmentation.geometry.size
        count = len(samples)
        ids = [s.class_id for s in samples if isinstance(s, Episode)]
        return LoadedBatch(
            samples=tuple(samples),
            images=torch.stack(images),
            keep=keep,
            places=torch.tensor(places).view(count, -1),
            masks=torch.stack(masks).view(count, -1, size, size) if masks else torch.empty(0),
            class_ids=torch.tensor(ids, dtype=torch.int64),
            labels=torch.stack(labels) if labels else None,
            names=tuple(str(key[0]) for key in unique) if self.keeps else None,
        )

    def _augmented(
        self, image_id: str, class_id: int | None, draw: Draw, *, marked: bool
    ) -> tuple[Tensor, list[Tensor]]:
        planes = []
        if class_id is not None:
            planes = [self.dataset.mask(image_id, class_id)]
        if marked or self.feed == "labelled":
            planes.append(self._labels(image_id))
        return self.augmentation(self.dataset.image(image_id), planes, draw)

    def _labels(self, image_id: str) -> Tensor:
        present = self.dataset.class_pixels(image_id)
        labels = torch.zeros(self.dataset.image(image_id).shape[-2:], dtype=torch.uint8)
        for number, class_id in enumerate(self.classes, start=1):
            if class_id in present:
                mask = self.dataset.mask(image_id, class_id)
                labels[(mask == IGNORE) & (labels == 0)] = IGNORE
                labels[mask == 1] = number
        return labels


def _shown(sample: Sample) -> list[tuple[str, int | None]]:
    if isinstance(sample, Episode):
        return [(sample.query, sample.class_id), *sample.supports()]
    return [(sample, None)]


@attrs.frozen
class Portion:
    """Consecutive samples of an epoch that one process loads at once."""

    first: int
    samples: Sequence[Sample]


class _Portions(TorchDataset["LoadedBatch | FssbenchError"]):
    def __init__(self, loader: BatchLoader, epoch: int, portions: Sequence[Portion]) -> None:
        self.loader = loader
        self.epoch = epoch
        self.portions = portions

    def __len__(self) -> int:
        return len(self.portions)

    def __getitem__(self, position: int) -> LoadedBatch | FssbenchError:
        portion = self.portions[position]
        try:
            return self.loader.load(self.epoch, portion.first, portion.samples)
        except FssbenchError as error:
            # A raised error would reach the user as a worker's traceback.
            return error


def load_batches(
    loader: BatchLoader, epoch: int, portions: Sequence[Portion], *, workers: int, pin: bool
) -> Iterator[LoadedBatch]:
    """Load portions of an epoch in order, ahead of their use.

    Args:
        loader: how.
        epoch: its number.
        portions: of which samples.
        workers: loader processes; 0 loads in this one.
        pin: load into memory from which a GPU copies without waiting.

    Raises:
        FssbenchError: an image or mask cannot be read, or a loader process died.
    """
    source = DataLoader(
        _Portions(loader, epoch, portions),
        batch_size=None,
        num_workers=min(workers, len(portions)),
        pin_memory=pin,
    )
    yield from raise_errors(source, advice="continue with --resume")


def portions_of(
    samples: Sequence[Sample], *, first_step: int, batch: int, parts: int, rank: int, world: int
) -> list[Portion]:
    """Cut an epoch into what one process loads, step after step and micro-batch after micro-batch.

    Args:
        samples: of the epoch; what is left after the last full batch is not used.
        first_step: steps of the epoch that are done.
        batch: samples of a step.
        parts: micro-batches of a step.
        rank: number of the process.
        world: how many processes.
    """
    share = batch // (parts * world)
    cut = []
    for step in range(first_step, len(samples) // batch):
        for part in range(parts):
            first = step * batch + (part * world + rank) * share
            cut.append(Portion(first, samples[first : first + share]))
    return cut
