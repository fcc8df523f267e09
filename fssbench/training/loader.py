"""Loading of training samples as tensors: decoding and augmenting in loader processes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE, Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.runtime.loading import load_ahead
from fssbench.training.augment import Augmentation
from fssbench.training.samples import Sample
from fssbench.training.stage import Feed


@attrs.frozen(kw_only=True, eq=False)
class LoadedBatch:
    """One micro-batch of one process.

    Identical images are stored, and encoded, only once.

    Attributes:
        samples: loaded samples.
        images: uint8 (U, 3, S, S).
        keep: uint8 (S, S) mask of each image whose background is hidden before encoding, or None.
        image_indices: int64 (B, 1 + K), or (B, 1) without supports: index into `images` of each
            query, followed by its supports.
        masks: uint8 (B, 1 + K, S, S) class masks, or labels; empty for plain images.
        class_ids: int64 (B,) of episodes; empty otherwise.
        labels: uint8 (B, S, S) of the queries of episodes, if requested; otherwise None.
        names: digests of `images`, if their features are cached; otherwise None.
    """

    samples: tuple[Sample, ...]
    images: Tensor
    keep: list[Tensor | None]
    image_indices: Tensor
    masks: Tensor
    class_ids: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] | None = None

    def pin_memory(self) -> LoadedBatch:
        """Return the same batch in pinned memory; called by torch's loader."""
        values = attrs.asdict(self, recurse=False).items()
        pinned: dict[str, Any] = {n: v.pin_memory() for n, v in values if torch.is_tensor(v)}
        return attrs.evolve(self, **pinned)


@attrs.frozen(kw_only=True, eq=False)
class BatchLoader:
    """A loader of the batches of one training.

    Attributes:
        dataset: dataset to load from.
        feed: kind of samples.
        augmentation: augmentation of each image.
        hide: True if the background of supports is hidden before encoding.
        classes: base classes, ascending; the n-th is n + 1 in labels.
        ignored: classes whose pixels are 255 in masks and labels, unless they show the mask's class
            or a labelled one too.
        key: key of the augmentation's random stream, in addition to epoch and sample.
        marks: True if queries of episodes are loaded with labels of all base classes.
        caches: True if features are cached, because each image has few augmented variants.
    """

    dataset: Dataset
    feed: Feed
    augmentation: Augmentation
    hide: bool
    classes: tuple[int, ...]
    key: tuple[str | int, ...]
    ignored: frozenset[int] = frozenset()
    marks: bool = False
    caches: bool = False

    def load(self, epoch: int, first: int, samples: Sequence[Sample]) -> LoadedBatch:
        """Load consecutive samples of an epoch.

        Args:
            epoch: number of the epoch.
            first: position of the first sample in the epoch.
            samples: samples to load.
        """
        unique: dict[tuple[object, ...], int] = {}
        images: list[Tensor] = []
        keep: list[Tensor | None] = []
        indices, masks, labels = [], [], []
        for index, sample in enumerate(samples, start=first):
            for position, (image_id, class_id) in enumerate(_shown(sample)):
                draw = Draw("augment", *self.key, epoch, index, position)
                marked = self.marks and class_id is not None and position == 0
                image, planes = self._augmented(image_id, class_id, draw, marked=marked)
                if marked:
                    labels.append(planes.pop())
                hidden = self.hide and position > 0
                key: tuple[object, ...] = (image_id, class_id if hidden else None)
                if self.augmentation.variants != 1:
                    key += (index, position)
                if key not in unique:
                    unique[key] = len(images)
                    images.append(image)
                    keep.append(planes[0] if hidden else None)
                indices.append(unique[key])
                masks += planes
        size = self.augmentation.geometry.size
        count = len(samples)
        ids = [s.class_id for s in samples if isinstance(s, Episode)]
        return LoadedBatch(
            samples=tuple(samples),
            images=torch.stack(images),
            keep=keep,
            image_indices=torch.tensor(indices).view(count, -1),
            masks=torch.stack(masks).view(count, -1, size, size) if masks else torch.empty(0),
            class_ids=torch.tensor(ids, dtype=torch.int64),
            labels=torch.stack(labels) if labels else None,
            names=tuple(map(_digest, images)) if self.caches else None,
        )

    def _augmented(
        self, image_id: str, class_id: int | None, draw: Draw, *, marked: bool
    ) -> tuple[Tensor, list[Tensor]]:
        planes = [] if class_id is None else [self._mask(image_id, class_id)]
        if marked or self.feed == "labelled":
            planes.append(self._labels(image_id))
        return self.augmentation(self.dataset.image(image_id), planes, draw)

    def _mask(self, image_id: str, class_id: int) -> Tensor:
        mask = self.dataset.mask(image_id, class_id)
        hidden = self._ignored_pixels(image_id)
        return mask if hidden is None else mask.masked_fill(hidden & (mask == 0), IGNORE)

    def _ignored_pixels(self, image_id: str) -> Tensor | None:
        """Return the pixels of `ignored` classes, bool (H, W); None without any."""
        if not self.ignored:
            return None
        present = self.ignored.intersection(self.dataset.class_pixels(image_id))
        masks = [self.dataset.mask(image_id, each) == 1 for each in present]
        return torch.stack(masks).any(0) if masks else None

    def _labels(self, image_id: str) -> Tensor:
        present = self.dataset.class_pixels(image_id)
        labels = torch.zeros(self.dataset.image(image_id).shape[-2:], dtype=torch.uint8)
        for number, class_id in enumerate(self.classes, start=1):
            if class_id in present:
                mask = self.dataset.mask(image_id, class_id)
                labels[(mask == IGNORE) & (labels == 0)] = IGNORE
                labels[mask == 1] = number
        hidden = self._ignored_pixels(image_id)
        return labels if hidden is None else labels.masked_fill(hidden & (labels == 0), IGNORE)


def _digest(image: Tensor) -> str:
    return hashlib.blake2b(image.contiguous().numpy().data, digest_size=16).hexdigest()


def _shown(sample: Sample) -> list[tuple[str, int | None]]:
    if isinstance(sample, Episode):
        return [(sample.query, sample.class_id), *sample.supports()]
    return [(sample, None)]


@attrs.frozen
class Portion:
    """Consecutive samples of an epoch that one process loads at once."""

    first: int
    samples: Sequence[Sample]


def load_batches(
    loader: BatchLoader, epoch: int, portions: Sequence[Portion], *, workers: int, pin: bool
) -> Iterator[LoadedBatch]:
    """Load portions of an epoch in order, ahead of their use.

    Args:
        loader: loader of the training.
        epoch: number of the epoch.
        portions: samples to load.
        workers: number of loader processes; 0 loads in this process.
        pin: True if tensors are in pinned memory.

    Raises:
        FssbenchError: an image or mask cannot be read, or a loader process died.
    """
    yield from load_ahead(
        functools.partial(_load, loader, epoch),
        portions,
        workers=min(workers, len(portions)),
        pin=pin,
        advice="continue with --resume",
    )


def _load(loader: BatchLoader, epoch: int, portion: Portion) -> LoadedBatch:
    return loader.load(epoch, portion.first, portion.samples)


def portions_of(
    samples: Sequence[Sample], *, first_step: int, batch: int, parts: int, rank: int, world: int
) -> list[Portion]:
    """Return the micro-batches of an epoch that one process loads, in order.

    Args:
        samples: samples of the epoch; an incomplete last batch is dropped.
        first_step: number of finished steps of the epoch.
        batch: samples of a step.
        parts: micro-batches of a step.
        rank: rank of the process.
        world: number of processes.
    """
    share = batch // (parts * world)
    starts = [
        step * batch + (part * world + rank) * share
        for step in range(first_step, len(samples) // batch)
        for part in range(parts)
    ]
    return [Portion(first, samples[first : first + share]) for first in starts]
