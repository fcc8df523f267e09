"""Loading of episodes as whole images."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.episodes.annotations import support_mask
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.inference.chunk_loader import ChunkTask, naming_lack_of_memory, target_of
from fssbench.inference.encoder_cache import EncoderCache
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.matchers.image_matcher import EpisodeImages
from fssbench.runtime.loading import load_ahead


@attrs.frozen(kw_only=True, eq=False)
class ImageChunkData:
    """The loaded images of one chunk.

    Attributes:
        task: task that was loaded.
        images: uint8 (3, H, W) by image id.
        masks: uint8 (H, W) by image and class id of a support.
        targets: uint8 (H, W) of each query; see `target_of`.
    """

    task: ChunkTask
    images: Mapping[str, Tensor]
    masks: Mapping[tuple[str, int], Tensor]
    targets: list[Tensor]


@attrs.frozen
class _ImageLoader:
    """The loading of a chunk."""

    dataset: Dataset
    void: str

    def __call__(self, task: ChunkTask) -> ImageChunkData:
        with naming_lack_of_memory(task):
            supports = dict.fromkeys(
                key for e in task.episodes for way in e.ways() for key in way.supports()
            )
            names = dict.fromkeys([e.query for e in task.episodes] + [i for i, _ in supports])
            return ImageChunkData(
                task=task,
                images={name: self.dataset.image(name) for name in names},
                masks={key: support_mask(self.dataset, *key) for key in supports},
                targets=[
                    target_of(episode, self.dataset, None, "original", self.void)
                    for episode in task.episodes
                ],
            )


class ImageChunks(EncoderCache):
    """The chunks of an evaluation on whole images, with the cache of their encoders.

    Args:
        pipeline: matcher and encoders.
        dataset: dataset of the images.
        budget: size limit of the cache in bytes.
        cache: further arguments of `EncoderCache`.
    """

    def __init__(
        self, pipeline: ImagePipeline, dataset: Dataset, budget: int, **cache: Any
    ) -> None:
        super().__init__(pipeline, budget, **cache)
        self._pipeline = pipeline
        self._dataset = dataset
        self._start_times: dict[int, int] = {}

    def load(
        self,
        chunks: Mapping[int, Sequence[Episode]],
        skip: Callable[[int], bool],
        *,
        score_size: str,
        void: str,
        workers: int,
    ) -> Iterator[ImageChunkData]:
        """Load chunks in order, ahead of their use.

        Args:
            chunks: episodes by chunk number.
            skip: predicate that is true for chunks that are no longer needed.
            score_size: score size of the protocol.
            void: ``ignore`` or ``background``, see `ProtocolSpec`.
            workers: number of loader processes.

        Raises:
            FssbenchError: the protocol scores at the input size of a backbone, an image or mask
                cannot be read, or a loader process died.
        """
        check_score_size(score_size)
        times: dict[str, list[int]] = defaultdict(list)
        for time, episode in enumerate(itertools.chain.from_iterable(chunks.values())):
            shown = (image for target in episode.targets for image in target.support)
            for name in {episode.query, *shown}:
                times[name].append(time)
        self.expect(times)
        starts = itertools.accumulate(map(len, chunks.values()), initial=0)
        self._start_times = dict(zip(chunks, starts, strict=False))
        return load_ahead(
            _ImageLoader(self._dataset, void),
            (
                ChunkTask(chunk=chunk, episodes=tuple(episodes), images=())
                for chunk, episodes in chunks.items()
                if not skip(chunk)
            ),
            workers=workers,
            pin=False,
            advice="run the same command again to resume",
        )

    def open(self, data: ImageChunkData) -> OpenImageChunk:
        """Return a loaded chunk, ready to be segmented."""
        device = self._pipeline.device
        images = {name: image.to(device) for name, image in data.images.items()}
        self.recognise(images)
        opened = attrs.evolve(
            data,
            images=images,
            masks={key: mask.to(device) for key, mask in data.masks.items()},
        )
        return OpenImageChunk(self, opened)


class OpenImageChunk:
    """A loaded chunk of whole images.

    Args:
        chunks: the chunks, with the cache of the encoders.
        data: loaded images, on the device.
    """

    def __init__(self, chunks: ImageChunks, data: ImageChunkData) -> None:
        self._chunks = chunks
        self._pipeline = chunks._pipeline
        self._data = data
        self.episodes = data.task.episodes
        self._first = chunks._start_times.get(data.task.chunk, 0)

    def logits(self, batch: range, sizes: Sequence[tuple[int, int]]) -> tuple[list[Tensor], Tensor]:
        """Return the logits of B of the chunk's episodes; see `OpenChunk.logits`."""
        del sizes  # those of the queries
        self._chunks.memory.move_to(self._first + batch.start)
        ways = [list(map(self.images, self.episodes[n].ways())) for n in batch]
        if len(ways[0]) == 1:
            found = self._pipeline.predict([episode for (episode,) in ways])
        else:
            found = list(map(self._pipeline.predict_ways, ways))
        return found, torch.stack([torch.isfinite(logits).all() for logits in found])

    def images(self, episode: Episode) -> EpisodeImages:
        """Return the images of an episode of one way."""
        return _episode_images(
            self._pipeline, self._chunks._dataset, episode, self._data.images, self._data.masks
        )


def episode_images(pipeline: ImagePipeline, dataset: Dataset, episode: Episode) -> EpisodeImages:
    """Load the images of an episode.

    Args:
        pipeline: matcher, which may take class names, and device.
        dataset: dataset of the images.
        episode: episode to load.
    """
    shown, device = episode.supports(), pipeline.device
    images = {name: dataset.image(name).to(device) for name in {episode.query, *dict(shown)}}
    masks = {key: support_mask(dataset, *key).to(device) for key in shown}
    return _episode_images(pipeline, dataset, episode, images, masks)


def _episode_images(
    pipeline: ImagePipeline,
    dataset: Dataset,
    episode: Episode,
    images: Mapping[str, Tensor],
    masks: Mapping[tuple[str, int], Tensor],
) -> EpisodeImages:
    shown = episode.supports()
    named = "class_names" in pipeline.matcher.uses
    return EpisodeImages(
        query=images[episode.query],
        images=tuple(images[image] for image, _ in shown),
        masks=tuple(masks[key] for key in shown),
        support_kind=dataset.support_kind,
        class_name=dataset.classes[episode.class_id] if named else None,
        generator=generator_of(episode),
    )


def generator_of(episode: Episode) -> torch.Generator:
    """Return a generator that is seeded by an episode's class, query and supports."""
    text = repr((episode.class_id, episode.query, episode.supports())).encode()
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(seed)


def check_score_size(score_size: str) -> None:
    """Raise an `FssbenchError` if predictions are not scored at the image's own size."""
    if score_size != "original":
        raise FssbenchError(
            "the protocol scores masks at the input size of a matcher's backbone, and a matcher "
            "on whole images has none; choose a protocol that scores at the original size"
        )
