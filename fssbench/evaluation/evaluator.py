"""Components that the cells of an evaluation share, and the evaluation of a cell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pandas
import torch

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.data.image_digest import ImageHashes
from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest
from fssbench.evaluation.chunk_queue import ChunkQueue
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.make_record import make_record
from fssbench.evaluation.measure import measure_chunks
from fssbench.evaluation.process_group import Chunks, ProcessGroup
from fssbench.evaluation.run import Run
from fssbench.evaluation.run_directory import RunDirectory
from fssbench.evaluation.training_overlap import TrainingOverlap
from fssbench.inference import cost
from fssbench.inference.chunk_loader import ChunkData
from fssbench.inference.episode_maps import EpisodeMaps
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.image_chunks import ImageChunkData, ImageChunks, episode_images
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.pipeline import Pipeline
from fssbench.matchers.checkpoint import Checkpoint
from fssbench.matchers.matcher import config_of
from fssbench.metrics.metric import Metric
from fssbench.results.method import short_digest
from fssbench.results.record import Record
from fssbench.runtime.code import Code, identities
from fssbench.specs import ProtocolSpec


@attrs.frozen(kw_only=True)
class CellOutcome:
    """The outcome of one cell (fold, shots, seed) of an evaluation.

    Attributes:
        record: record of the cell.
        folder: run directory.
        fresh: True if this call measured episodes, False if the record was finished before.
    """

    record: Record
    folder: Path
    fresh: bool


Observers = Callable[[Run], Sequence[object]]
"""Function that returns the observers (objects with hook methods) of a cell."""


@attrs.frozen(kw_only=True)
class Evaluator:
    """The components that all cells of an evaluation share.

    Attributes:
        settings: settings of the evaluation, with registered names.
        protocol: protocol of manifests and scores.
        dataset: dataset of the images.
        folds: folds to evaluate.
        pipeline: matcher and its encoders.
        checkpoint: trained weights of the matcher, or None.
        hashes: hashes of the dataset's images.
        training: comparison with the training of the checkpoint and of trained encoders.
        cache: cache of features, from which chunks are loaded.
        metrics: metrics to measure.
        drawn: values of the matcher from the global random generators, see `drawn_values`.
        code: code of matcher, backbone, dataset, metrics and sampler, by package.
        workers: number of loader processes.
    """

    settings: Evaluation
    protocol: ProtocolSpec
    dataset: Dataset
    folds: Sequence[int]
    pipeline: Pipeline | ImagePipeline
    checkpoint: Checkpoint | None
    hashes: ImageHashes
    training: TrainingOverlap
    cache: FeatureCache | ImageChunks
    metrics: tuple[Metric, ...]
    drawn: tuple[str, ...]
    code: Mapping[str, Code]
    workers: int
    _flops: dict[tuple[int, int], int | None] = attrs.field(factory=dict, init=False)

    def manifests(self) -> list[Manifest]:
        """Build the manifest of each cell."""
        return [
            build_manifest(
                self.protocol,
                self.dataset,
                fold=fold,
                shots=shots,
                seed=seed,
                limit=self.settings.limit,
                lists=self.settings.lists,
            )
            for fold in self.folds
            for shots in self.settings.shots
            for seed in self.settings.seeds
        ]

    def folder(self, manifest: Manifest) -> Path:
        """Return a cell's run directory.

        It is ``OUT/protocol/matcher--backbone--digits/fold0-1shot-seed0``.
        """
        digits = short_digest([self._facts(), manifest.fingerprint, manifest.limit])
        return self.settings.out.joinpath(
            re.sub(r"[^\w.+-]", "-", manifest.protocol),
            f"{self.settings.matcher}--{self.settings.backbone}--{digits}".replace("/", "-"),
            f"fold{manifest.fold}-{manifest.shots}shot-seed{manifest.seed}",
        )

    def identity(self, manifest: Manifest) -> dict[str, Any]:
        """Return everything that the rows of a cell depend on, as JSON values."""
        return {
            **self._facts(),
            "manifest": manifest.digest,
            "fingerprint": manifest.fingerprint,
            "images": self.hashes.digest(manifest.image_ids()),
            "code": identities(self.code),
        }

    def run(
        self,
        manifest: Manifest,
        observers: Observers,
        group: ProcessGroup | None = None,
        requested: Evaluation | None = None,
    ) -> CellOutcome:
        """Evaluate a cell, resume it, or read its record.

        Args:
            manifest: episodes of the cell.
            observers: function that returns further observers.
            group: processes that share the work; None for this process alone.
            requested: settings for the processes that the group starts; None for those of this
                evaluator.
        """
        group = group or ProcessGroup()
        folder, identity = self.folder(manifest), self.identity(manifest)
        save = self.settings.save_predictions
        fresh = self.settings.fresh
        with RunDirectory(
            folder, identity, manifest, save_predictions=save, fresh=fresh
        ) as directory:
            finished = directory.finished()
            if finished is not None:
                return CellOutcome(record=finished, folder=folder, fresh=False)
            left = directory.left()
            if left:
                group.start(requested or self.settings)
            run = Run(
                matcher=self.settings.matcher,
                backbone=self.settings.backbone,
                manifest=manifest,
                dataset=self.dataset,
                folder=folder,
                done=len(manifest.episodes) - sum(map(len, left.values())),
                maps=EpisodeMaps(dataset=self.dataset, pipeline=self.pipeline),
            )
            with registry.observing(list(observers(run))) as hook:
                hook.fssbench_evaluation_started(run=run)
                results = (
                    group.lead(folder, left, self.measure, identity)
                    if group.count > 1
                    else self.measure(left)
                )
                for result in results:
                    directory.add(result)
                    hook.fssbench_episodes_measured(
                        run=run,
                        chunk=result.chunk,
                        episodes=result.episodes,
                        rows=result.rows,
                        predictions=result.predictions,
                    )
                record = self.record(
                    manifest,
                    directory.rows(),
                    seconds=directory.seconds,
                    predictions=directory.predictions_digest(),
                    images=identity["images"],
                )
                directory.finish(record)
                hook.fssbench_evaluation_finished(run=run, record=record)
        return CellOutcome(record=record, folder=folder, fresh=True)

    def record(
        self,
        manifest: Manifest,
        rows: pandas.DataFrame,
        *,
        seconds: float,
        predictions: str,
        images: str,
    ) -> Record:
        """Return the record of a cell.

        Args:
            manifest: episodes of the cell.
            rows: one row for each episode.
            seconds: total time of the episodes.
            predictions: digest of the saved masks, or "".
            images: digest of the images, from the identity that the run started with.
        """
        return make_record(
            self.settings,
            manifest,
            self.pipeline,
            self.checkpoint,
            self.metrics,
            score_size=self.protocol.score_size,
            rows=rows,
            seconds=seconds,
            predictions=predictions,
            images=images,
            drawn=self.drawn,
            code=self.code,
            flops=self.flops(manifest),
            folds_of=self.dataset.folds_of,
            overlap=self.training.classes(manifest),
            tested_images=self.training.images(manifest),
        )

    def flops(self, manifest: Manifest) -> int | None:
        """Return the floating-point operations of an episode with nothing cached.

        Those of an image matcher are counted for the first episode, since they may depend on the
        images; None if its operations cannot be counted.
        """
        first = [way for way in manifest.episodes[0].ways() if way.support]
        if isinstance(self.pipeline, Pipeline):
            kind = manifest.shots, len(first)
            if kind not in self._flops:
                self._flops[kind] = cost.flops_per_episode(self.pipeline, *kind)
            return self._flops[kind]
        images = [episode_images(self.pipeline, self.dataset, way) for way in first]
        return cost.flops_of(self.pipeline, *images)

    def assist(self, manifest: Manifest, group: ProcessGroup) -> None:
        """Measure chunks of a cell for the first process of a group."""
        chunks = chunks_of(manifest.episodes)
        group.help_with(self.folder(manifest), chunks, self.measure, self.identity(manifest))

    def measure(self, chunks: Chunks, queue: ChunkQueue | None = None) -> Iterator[ChunkResult]:
        """Measure chunks of episodes, in their order.

        Args:
            chunks: episodes by chunk number.
            queue: queue from which several processes take chunks; None if this process measures
                all. A chunk is locked at its turn; the loaded images of one that another process
                locked first are dropped.
        """
        unwanted = (lambda chunk: False) if queue is None else queue.done
        loaded: Iterator[Any] = self.cache.load(
            chunks,
            unwanted,
            score_size=self.protocol.score_size,
            void=self.protocol.void,
            workers=min(self.workers, len(chunks)),
        )
        if queue is not None:
            loaded = (data for data in loaded if self._claimed(data, queue))
        return measure_chunks(
            loaded,
            self.pipeline.device,
            self.cache,
            self.metrics,
            batch_size=self.settings.batch_size,
        )

    def _claimed(self, data: ChunkData | ImageChunkData, queue: ChunkQueue) -> bool:
        if queue.claim(data.task.chunk):
            return True
        if isinstance(self.cache, FeatureCache) and isinstance(data, ChunkData):
            self.cache.open(data)  # later chunks must load again what this one was to load
        return False

    def _facts(self) -> dict[str, Any]:
        """Return everything but the manifest that the rows depend on."""
        facts = {
            "matcher": self.settings.matcher,
            "config": config_of(self.pipeline.matcher),
            "checkpoint": None if self.checkpoint is None else self.checkpoint.sha256,
            "backbone": self.settings.backbone,
            "weights": attrs.asdict(self.pipeline.weights),
            "metrics": list(self.settings.metrics),
            "device": self.pipeline.device.type,
            "precision": self.settings.precision,
            "batch_size": self.settings.batch_size,
            "torch": torch.__version__,
        }
        # Present only where set, so that older run directories are found again.
        if self.settings.save_predictions:
            facts["predictions"] = True
        if self.settings.cache_half:
            facts["features"] = "float16"
        if isinstance(self.pipeline, ImagePipeline):
            facts["encoders"] = {
                role: [encoder.name, attrs.asdict(encoder.weights)]
                for role, encoder in self.pipeline.encoders.items()
            }
        return facts
