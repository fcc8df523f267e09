"""What an evaluation will take, before it starts: one chunk is measured, the rest is counted.

A chunk is measured once, after one episode of warm-up, with a clock at each step of the pipeline.
How often each step is taken is then counted, exactly: the real cache runs over all episodes of the
manifest in the order in which they will be visited, within the real budget (all sizes divided by
the same number), and makes nothing.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import attrs
import torch
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.evaluation.evaluate import prepare
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import Evaluator
from fssbench.inference import cost
from fssbench.inference.chunk_loader import ChunkData
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.feature_uses import encoded
from fssbench.inference.lookahead_cache import LookaheadCache
from fssbench.inference.pipeline import Features, Pipeline
from fssbench.results.record import RECORD_FILE

STEPS = ("encode", "prepare_support", "join_supports", "prepare_query", "segment")
_UNIT = 1 << 10
"""One byte of a sham stands for so many."""
_ANYTHING = 1 << 62


@attrs.frozen(kw_only=True)
class Rates:
    """What the measured chunk says.

    Attributes:
        seconds: of each call of a step; and ``other``, for each episode: loading in one process,
            scoring, counting.
        bytes: that are kept of each call, beside what it shares with its input; those of ``encode``
            are of one image.
        shares: steps whose result holds its input, too.
        memory: peak bytes of the process (on a GPU, that are allocated) without the cache.
    """

    seconds: Mapping[str, float]
    bytes: Mapping[str, float]
    shares: frozenset[str]
    memory: float


@attrs.frozen(kw_only=True)
class Estimate:
    """What one cell will take in one process.

    Attributes:
        matcher, backbone, fold, shots, seed: which cell.
        episodes: how many.
        done: its record is there already, so that it takes nothing.
        images: that the encoder will be given.
        distinct_images: as many as it would be given if everything were kept.
        seconds: wall time.
        step_seconds: of each call of a step, and ``other`` of each episode; empty when it is done.
        cache_bytes: of the cache in memory, at its fullest.
        all_bytes: that it would take to keep everything.
        memory_bytes: peak memory, the cache included.
        disk_bytes: of ``--cache-dir``, if there is one.
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


def estimate(jobs: Sequence[Evaluation]) -> list[Estimate]:
    """What evaluations will take. A chunk is measured for each model and number of shots.

    Raises:
        FssbenchError: a name, option, file or dataset is not as it must be.
    """
    known: dict[str, Rates] = {}
    found = []
    for job in jobs:
        bench = prepare(job)
        for manifest in bench.manifests():
            folder, _ = bench.place(manifest)
            alike = attrs.evolve(
                bench.job, checkpoint=None, folds=None, seeds=(0,), shots=(manifest.shots,)
            )
            done = (folder / RECORD_FILE).exists()
            if not done and repr(alike) not in known:
                known[repr(alike)] = measure_rates(bench, manifest)
            found.append(_estimated(bench, manifest, None if done else known[repr(alike)]))
    return found


def measure_rates(bench: Evaluator, manifest: Manifest) -> Rates:
    """Measure the first chunk of a manifest."""
    pipeline = _Clocked(bench.pipeline)
    (number, episodes), *_ = chunks_of(manifest.episodes).items()

    def once(some: Sequence[Episode]) -> tuple[float, FeatureCache]:
        cache = FeatureCache(pipeline, bench.dataset, _ANYTHING, batch_size=bench.job.batch_size)
        timed = attrs.evolve(bench, pipeline=pipeline, cache=cache, workers=0)
        pipeline.forget()
        return sum(seconds for *_, seconds in timed.measured({number: some})), cache

    once(episodes[:1])
    seconds, cache = once(episodes)
    other = max(0.0, seconds - sum(pipeline.seconds.values())) / len(episodes)
    calls = pipeline.calls
    memory = cost.peak_memory_mib(pipeline.device) * 2**20 - cache.memory.bytes
    return Rates(
        seconds={
            "other": other,
            **{step: pipeline.seconds[step] / calls[step] for step in STEPS if calls[step]},
        },
        bytes={step: pipeline.bytes[step] / pipeline.results[step] for step in pipeline.results},
        shares=frozenset(pipeline.shares),
        memory=max(0.0, memory),
    )


def _estimated(bench: Evaluator, manifest: Manifest, rates: Rates | None) -> Estimate:
    episodes = manifest.episodes
    request = bench.pipeline.request
    supports = {each for episode in episodes for each in episode.supports()}
    queries = {episode.query for episode in episodes}
    images = {(query, None) for query in queries} | {encoded(each, request) for each in supports}
    sham = _Sham(bench.pipeline, rates)
    if rates is not None:
        sham.run(bench, manifest)
    seconds = sham.seconds() + (0.0 if rates is None else rates.seconds["other"] * len(episodes))
    sizes: Mapping[str, float] = {} if rates is None else rates.bytes
    every = (
        len(images) * sizes.get("encode", 0)
        + len(queries) * sizes.get("prepare_query", 0)
        + len(supports) * sizes.get("prepare_support", 0)
        + len({tuple(episode.supports()) for episode in episodes}) * sizes.get("join_supports", 0)
    )
    return Estimate(
        matcher=bench.job.matcher,
        backbone=bench.job.backbone,
        fold=manifest.fold,
        shots=manifest.shots,
        seed=manifest.seed,
        episodes=len(episodes),
        done=rates is None,
        images=sham.images,
        distinct_images=len(images),
        seconds=seconds,
        step_seconds={} if rates is None else rates.seconds,
        cache_bytes=sham.fullest * _UNIT,
        all_bytes=int(every),
        memory_bytes=int(sham.fullest * _UNIT + (0 if rates is None else rates.memory)),
        disk_bytes=int(len(images) * sizes.get("encode", 0)) if bench.job.cache_dir else 0,
    )


class _Clocked(Pipeline):
    """A pipeline with a clock at each step, and a look at how large results are."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.__dict__.update(pipeline.__dict__)
        self.forget()

    def forget(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.bytes: dict[str, float] = defaultdict(float)
        self.shares: set[str] = set()

    def encode(self, images: Tensor, keep: Sequence[Tensor | None] | None = None) -> list[Features]:
        with self._clock("encode"):
            features = super().encode(images, keep)
        for each in features:
            self._weigh("encode", each, None)
        return features

    def prepare_support(self, features: Features, mask: Tensor) -> Any:
        with self._clock("prepare_support"):
            prepared = super().prepare_support(features, mask)
        self._weigh("prepare_support", prepared, features)
        return prepared

    def join_supports(self, prepared: Sequence[Sequence[Any]]) -> Any:
        with self._clock("join_supports"):
            joined = super().join_supports(prepared)
        self._weigh("join_supports", joined, prepared)
        return joined

    def prepare_query(self, features: Features) -> Any:
        with self._clock("prepare_query"):
            prepared = super().prepare_query(features)
        self._weigh("prepare_query", prepared, features)
        return prepared

    def segment_prepared(self, queries: Sequence[Any], support: Any) -> Tensor:
        with self._clock("segment"):
            return super().segment_prepared(queries, support)

    @contextmanager
    def _clock(self, step: str) -> Iterator[None]:
        self._settle()
        before = time.perf_counter()
        yield
        self._settle()
        self.seconds[step] += time.perf_counter() - before
        self.calls[step] += 1

    def _settle(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _weigh(self, step: str, result: Any, made_of: Any) -> None:
        """Bytes of a result that are not its input's, and whether it holds any of its input."""
        alone, together = LookaheadCache(_ANYTHING), LookaheadCache(_ANYTHING)
        alone.put("result", result)
        together.put("input", made_of)
        before = together.bytes
        together.put("result", result)
        own = together.bytes - before
        self.results[step] += 1
        self.bytes[step] += own
        if alone.bytes > own:
            self.shares.add(step)


class _Sham:
    """Stands for a pipeline, a dataset and loaded chunks; counts calls, and makes nothing.

    Args:
        pipeline: for which.
        rates: how large its results are.
    """

    def __init__(self, pipeline: Pipeline, rates: Rates | None) -> None:
        self.request = pipeline.request
        self.encode_batch = pipeline.encode_batch
        self.device = torch.device("cpu")
        self.geometry = self
        self.calls: Counter[str] = Counter()
        self.images = 0
        self.fullest = 0
        self._rates = rates

    def seconds(self) -> float:
        """What all calls take."""
        rates = {} if self._rates is None else self._rates.seconds
        return sum(count * rates.get(step, 0.0) for step, count in self.calls.items())

    def run(self, bench: Evaluator, manifest: Manifest) -> None:
        """Go through a manifest as an evaluation does."""
        size = bench.job.batch_size
        cache = FeatureCache(
            cast(Pipeline, self), cast(Dataset, self), bench.cache.memory.budget // _UNIT,
            batch_size=size,
        )  # fmt: skip
        for task in cache.plan(chunks_of(manifest.episodes)):
            count = len(task.episodes)
            opened = cache.open(
                ChunkData(
                    task=task,
                    images=torch.zeros(len(task.images), 1),
                    keep=[None] * len(task.images),
                    support_masks=torch.zeros(count, manifest.shots, 1),
                    targets=[],
                )
            )
            for start in range(0, count, size):
                opened.logits(range(start, min(count, start + size)))
                self.fullest = max(self.fullest, cache.memory.bytes)

    # As a pipeline.

    def encode(self, images: Tensor, keep: object) -> list[Features]:
        del keep
        self.calls["encode"] += 1
        self.images += len(images)
        return [{"": self._bytes("encode")} for _ in images]

    def prepare_support(self, features: Features, mask: Tensor) -> Any:
        del mask
        return self._result("prepare_support", features)

    def join_supports(self, prepared: Sequence[Sequence[Any]]) -> Any:
        return self._result("join_supports", prepared)

    def prepare_query(self, features: Features) -> Any:
        return self._result("prepare_query", features)

    def segment_prepared(self, queries: Sequence[Any], support: Any) -> Tensor:
        del support
        self.calls["segment"] += 1
        return torch.zeros(len(queries), 1, 1)

    # As a dataset, and as a geometry.

    def image(self, image: object) -> Tensor:
        del image
        return torch.zeros(1)

    def mask(self, *arguments: object) -> Tensor:
        del arguments
        return torch.zeros(1)

    def _result(self, step: str, made_of: Any) -> Any:
        self.calls[step] += 1
        assert self._rates is not None
        return self._bytes(step), made_of if step in self._rates.shares else None

    def _bytes(self, step: str) -> Tensor:
        assert self._rates is not None
        return torch.empty(round(self._rates.bytes.get(step, 0) / _UNIT), dtype=torch.uint8)
