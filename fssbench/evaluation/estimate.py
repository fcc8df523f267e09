"""Estimate of the time and memory of an evaluation, from one measured chunk.

One chunk is timed, after one episode of warm-up, separately for each step of the pipeline. The
number of calls of each step is then counted with the cache itself, over all episodes of the
manifest in their order, within the real budget (all sizes divided by the same number).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.evaluation.evaluate import prepare
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import Evaluator
from fssbench.inference import cost
from fssbench.inference.chunk_loader import ChunkData
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.feature_uses import ImageKey, encoded
from fssbench.inference.image_chunks import ImageChunks
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.lookahead_cache import LookaheadCache
from fssbench.inference.pipeline import Pipeline
from fssbench.results.record import RECORD_FILE

STEPS = ("encode", "prepare_support", "embed_support", "prepare_query", "segment")
_UNIT = 1 << 10
"""Bytes of a feature that one byte of the counted cache stands for."""
_UNLIMITED = 1 << 62


@attrs.frozen(kw_only=True)
class Rates:
    """The measured cost of each step of the pipeline.

    Attributes:
        seconds: seconds per call of each step, and per episode of ``other``: loading in one
            process, scoring, counting.
        bytes: bytes of the result of one call, without memory shared with the input; for
            ``encode`` those of one image.
        shares: steps whose result shares memory with the input.
        memory: peak bytes of the process (on a GPU, of allocations) without the cache.
    """

    seconds: Mapping[str, float] = attrs.field(factory=dict)
    bytes: Mapping[str, float] = attrs.field(factory=dict)
    shares: frozenset[str] = frozenset()
    memory: float = 0.0


@attrs.frozen(kw_only=True)
class Estimate:
    """The estimated cost of one cell in one process.

    Attributes:
        matcher, backbone, fold, shots, seed: coordinates of the cell.
        episodes: number of episodes.
        done: True if the record exists already, so that the cost is zero.
        images: number of images that will be encoded.
        distinct_images: number of images that an unlimited cache would encode.
        seconds: wall time.
        step_seconds: seconds per call of each step, and per episode of ``other``; empty if done.
        cache_bytes: peak size of the cache in memory.
        all_bytes: peak size of an unlimited cache.
        memory_bytes: peak memory, including the cache.
        disk_bytes: size of ``--cache-dir``, or 0 without one.
    """

    matcher: str
    backbone: str
    fold: int
    shots: int
    seed: int
    episodes: int
    done: bool
    images: int
    distinct_images: int
    seconds: float
    step_seconds: Mapping[str, float]
    cache_bytes: int
    all_bytes: int
    memory_bytes: int
    disk_bytes: int


def estimate(evaluations: Sequence[Evaluation]) -> list[Estimate]:
    """Estimate evaluations, measuring one chunk for each model and number of shots.

    Raises:
        FssbenchError: a name, option, file or dataset is not as it must be.
    """
    known: dict[str, Rates] = {}
    found = []
    for settings in evaluations:
        evaluator = prepare(settings)
        manifests = evaluator.manifests()
        evaluator.training.warn(manifests)
        for manifest in manifests:
            folder = evaluator.folder(manifest)
            model = attrs.evolve(
                evaluator.settings, checkpoint=None, folds=None, seeds=(0,), shots=(manifest.shots,)
            )
            done = (folder / RECORD_FILE).exists()
            if isinstance(evaluator.pipeline, ImagePipeline):
                found.append(_image_estimate(evaluator, manifest, known, repr(model), done=done))
                continue
            if not done and repr(model) not in known:
                known[repr(model)] = measure_rates(evaluator, manifest)
            found.append(_estimated(evaluator, manifest, None if done else known[repr(model)]))
    return found


def measure_rates(evaluator: Evaluator, manifest: Manifest) -> Rates:
    """Measure the first chunk of a manifest."""
    (number, episodes), *_ = chunks_of(manifest.episodes).items()

    def measure(some: Sequence[Episode]) -> tuple[float, _TimedPipeline, FeatureCache]:
        pipeline = _TimedPipeline(_with_backbone(evaluator))
        size = evaluator.settings.batch_size
        cache = FeatureCache(pipeline, evaluator.dataset, _UNLIMITED, batch_size=size)
        timed = attrs.evolve(evaluator, pipeline=pipeline, cache=cache, workers=0)
        return sum(result.seconds for result in timed.measure({number: some})), pipeline, cache

    measure(episodes[:1])  # warm-up
    seconds, pipeline, cache = measure(episodes)
    memory = cost.peak_memory_mib(pipeline.device) * 2**20 - cache.memory.bytes
    return Rates(
        seconds={
            "other": max(0.0, seconds - sum(map(sum, pipeline.seconds.values()))) / len(episodes),
            **{step: fmean(times) for step, times in pipeline.seconds.items()},
        },
        bytes={step: fmean(sizes) for step, sizes in pipeline.bytes.items()},
        shares=frozenset(pipeline.shares),
        memory=max(0.0, memory),
    )


def _image_estimate(
    evaluator: Evaluator, manifest: Manifest, known: dict[str, Rates], key: str, *, done: bool
) -> Estimate:
    """Estimate a cell of an image matcher, whose steps are not known: every episode costs the same.

    The time is an upper bound, since later chunks find more images in the cache.
    """
    episodes, settings = manifest.episodes, evaluator.settings
    distinct = len(manifest.image_ids())
    if not done and key not in known:
        known[key] = _image_rates(evaluator, manifest)
    rates = Rates() if done else known[key]
    every = int(distinct * rates.bytes.get("image", 0))
    cached = min(every, evaluator.cache.memory.budget)
    return Estimate(
        matcher=settings.matcher,
        backbone=settings.backbone,
        fold=manifest.fold,
        shots=manifest.shots,
        seed=manifest.seed,
        episodes=len(episodes),
        done=done,
        images=0 if done else distinct,
        distinct_images=distinct,
        seconds=len(episodes) * rates.seconds.get("episode", 0.0),
        step_seconds=rates.seconds,
        cache_bytes=cached,
        all_bytes=every,
        memory_bytes=int(cached + rates.memory),
        disk_bytes=every if settings.cache_dir else 0,
    )


def _image_rates(evaluator: Evaluator, manifest: Manifest) -> Rates:
    """Measure an image matcher on the first chunk of a manifest."""
    (number, episodes), *_ = chunks_of(manifest.episodes).items()
    pipeline = evaluator.pipeline
    assert isinstance(pipeline, ImagePipeline)
    own = {role: encoder.cache for role, encoder in pipeline.encoders.items()}
    try:
        for some in (episodes[:1], episodes):  # the first is a warm-up
            chunks = ImageChunks(pipeline, evaluator.dataset, _UNLIMITED)
            timed = attrs.evolve(evaluator, cache=chunks, workers=0)
            seconds = sum(result.seconds for result in timed.measure({number: some}))
    finally:
        for role, encoder in pipeline.encoders.items():
            encoder.cache = own[role]
    images = {name for e in episodes for name in (e.query, *dict(e.supports()))}
    memory = cost.peak_memory_mib(pipeline.device) * 2**20 - chunks.memory.bytes
    return Rates(
        seconds={"episode": seconds / len(episodes)},
        bytes={"image": chunks.memory.bytes / len(images)},
        memory=max(0.0, memory),
    )


def _estimated(evaluator: Evaluator, manifest: Manifest, rates: Rates | None) -> Estimate:
    episodes, settings = manifest.episodes, evaluator.settings
    ways = manifest.by_way()
    supports = {each for way in ways for each in way.supports()}
    queries = {episode.query for episode in episodes}
    images: set[ImageKey] = {(query, None) for query in queries}
    images |= {encoded(each, _with_backbone(evaluator).request) for each in supports}
    calls, cached = (
        (Counter[str](), 0) if rates is None else count_calls(evaluator, manifest, rates)
    )
    done, rates = rates is None, rates or Rates()
    distinct = {
        "encode": len(images),
        "prepare_query": len(queries),
        "prepare_support": len(supports),
        "embed_support": len({tuple(way.supports()) for way in ways}),
    }
    encodings = -(-calls["encode"] // _with_backbone(evaluator).encode_batch)
    steps = {**calls, "encode": encodings, "other": len(episodes)}
    return Estimate(
        matcher=settings.matcher,
        backbone=settings.backbone,
        fold=manifest.fold,
        shots=manifest.shots,
        seed=manifest.seed,
        episodes=len(episodes),
        done=done,
        images=calls["encode"],
        distinct_images=len(images),
        seconds=sum(count * rates.seconds.get(step, 0.0) for step, count in steps.items()),
        step_seconds=rates.seconds,
        cache_bytes=cached,
        all_bytes=int(sum(count * rates.bytes.get(step, 0) for step, count in distinct.items())),
        memory_bytes=int(cached + rates.memory),
        disk_bytes=int(len(images) * rates.bytes.get("encode", 0)) if settings.cache_dir else 0,
    )


def count_calls(evaluator: Evaluator, manifest: Manifest, rates: Rates) -> tuple[Counter[str], int]:
    """Count the calls of each step in a run over a manifest.

    Returns:
        Calls by step (for ``encode``, images), and the peak size of the cache in bytes.
    """
    pipeline: Any = _CountingPipeline(_with_backbone(evaluator), rates)
    size = evaluator.settings.batch_size
    budget = evaluator.cache.memory.budget // _UNIT
    cache = FeatureCache(pipeline, pipeline, budget, batch_size=size)
    peak = 0
    for task in cache.plan(chunks_of(manifest.episodes)):
        images, episodes = len(task.images), len(task.episodes)
        opened = cache.open(
            ChunkData(
                task=task,
                images=torch.empty(images, 0),
                keep=[None] * images,
                support_masks=torch.empty(episodes * manifest.ways, manifest.shots, 0),
                targets=[],
            )
        )
        for first in range(0, episodes, size):
            opened.segment(range(first, min(first + size, episodes)))
            peak = max(peak, cache.memory.bytes)
    return pipeline.calls, peak * _UNIT


def _with_backbone(evaluator: Evaluator) -> Pipeline:
    assert isinstance(evaluator.pipeline, Pipeline)
    return evaluator.pipeline


class _CountingPipeline:
    """A pipeline without computation, whose results have the measured sizes; also its dataset.

    Args:
        pipeline: pipeline to stand in for.
        rates: sizes of the results, which are divided by `_UNIT`.
    """

    def __init__(self, pipeline: Pipeline, rates: Rates) -> None:
        self.request, self.encode_batch = pipeline.request, pipeline.encode_batch
        self.geometry = self
        self.calls: Counter[str] = Counter()
        self._rates = rates
        steps = [step for step in STEPS if step != "encode"]
        vars(self).update((step, partial(self._made, step)) for step in steps)

    def encode(self, images: Tensor, keep: Any) -> list[Any]:
        del keep
        return [self._made("encode") for _ in images]

    def image(self, *_: Any) -> Tensor:
        return torch.empty(0)

    mask = image
    support_kind = "mask"

    def _made(self, step: str, source: Any = None, *_: Any) -> Any:
        self.calls[step] += 1
        size = round(self._rates.bytes.get(step, 0) / _UNIT)
        own = torch.empty(size, dtype=torch.uint8)
        return own, source if step in self._rates.shares else None


class _TimedPipeline(Pipeline):
    """A pipeline that measures the time and the result size of each step."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.__dict__.update(pipeline.__dict__)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.bytes: dict[str, list[int]] = defaultdict(list)
        self.shares: set[str] = set()

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _measure_size(self, step: str, result: Any, source: Any) -> None:
        """Count the bytes of a result that it does not share with its input."""
        alone, together = LookaheadCache(_UNLIMITED), LookaheadCache(_UNLIMITED)
        alone.put("result", result)
        together.put("input", source)
        before = together.bytes
        together.put("result", result)
        own = together.bytes - before
        self.bytes[step].append(own)
        if alone.bytes > own:
            self.shares.add(step)


def _timed(step: str) -> Callable[..., Any]:
    """Return the method of a step with a clock; `encode` gives one result for each image."""
    method = getattr(Pipeline, step)

    def call(self: _TimedPipeline, *arguments: Any) -> Any:
        self._synchronize()
        before = time.perf_counter()
        result = method(self, *arguments)
        self._synchronize()
        self.seconds[step].append(time.perf_counter() - before)
        if step != "segment":
            whole = step != "encode"
            for each in [result] if whole else result:
                self._measure_size(step, each, arguments[0] if whole else None)
        return result

    return call


for _step in STEPS:
    setattr(_TimedPipeline, _step, _timed(_step))
