"""Everything that an evaluation's cells share, and the measuring of one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pandas
import torch

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest
from fssbench.evaluation.chunk_queue import ChunkQueue
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.make_record import make_record
from fssbench.evaluation.measure import Measured, measure_chunks
from fssbench.evaluation.process_group import Chunks, Measure, ProcessGroup
from fssbench.evaluation.run import Run
from fssbench.evaluation.run_directory import RunDirectory
from fssbench.inference.chunk_loader import ChunkData, load_chunks
from fssbench.inference.episode_maps import EpisodeMaps
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.pipeline import Pipeline
from fssbench.matchers.checkpoint import Checkpoint
from fssbench.matchers.matcher import config_of
from fssbench.metrics.metric import Metric
from fssbench.results.record import Record
from fssbench.specs import ProtocolSpec


@attrs.frozen(kw_only=True)
class CellOutcome:
    """One finished cell (fold, shots, seed) of an evaluation.

    Attributes:
        record: what was measured.
        folder: its run directory.
        fresh: whether this call measured anything, or the folder held the finished record already.
    """

    record: Record
    folder: Path
    fresh: bool


Observers = Callable[[Run], Sequence[object]]
"""Makes the observers (objects with hook methods) of one cell."""


@attrs.frozen(kw_only=True)
class Evaluator:
    """What all cells of one call share.

    Attributes:
        job: what was asked for, with the names that the user left open.
        protocol: how episodes are made and scored.
        dataset: where images are.
        folds: which are evaluated.
        pipeline: matcher and backbone.
        checkpoint: the matcher's trained weights, if it has any.
        cache: features.
        metrics: what is measured.
        workers: loader processes.
    """

    job: Evaluation
    protocol: ProtocolSpec
    dataset: Dataset
    folds: Sequence[int]
    pipeline: Pipeline
    checkpoint: Checkpoint | None
    cache: FeatureCache
    metrics: tuple[Metric, ...]
    workers: int

    def manifests(self) -> list[Manifest]:
        """The cells that were asked for."""
        return [
            build_manifest(
                self.protocol,
                self.dataset,
                fold=fold,
                shots=shots,
                seed=seed,
                limit=self.job.limit,
                lists=self.job.lists,
            )
            for fold in self.folds
            for shots in self.job.shots
            for seed in self.job.seeds
        ]

    def place(self, manifest: Manifest) -> tuple[Path, dict[str, Any]]:
        """A cell's run directory, and everything that its rows depend on."""
        settings = self._settings()
        identity = {**settings, "manifest": manifest.digest, "fingerprint": manifest.fingerprint}
        return self._folder(manifest, settings), identity

    def run(
        self,
        manifest: Manifest,
        observers: Observers,
        team: ProcessGroup | None = None,
        asked: Evaluation | None = None,
    ) -> CellOutcome:
        """Evaluate one cell, or go on with it, or read its record.

        Args:
            manifest: the episodes.
            observers: makes further observers.
            team: the processes that share the work; None for this one alone.
            asked: what the others are told to do, where the team starts them.
        """
        team = team or ProcessGroup()
        folder, identity = self.place(manifest)
        keep = self.job.save_predictions
        with RunDirectory(folder, identity, manifest, keep_predictions=keep) as directory:
            finished = directory.finished()
            if finished is not None:
                return CellOutcome(record=finished, folder=folder, fresh=False)
            left = directory.left()
            if left:
                team.start(asked or self.job)
            run = Run(
                matcher=self.job.matcher,
                backbone=self.job.backbone,
                manifest=manifest,
                dataset=self.dataset,
                folder=folder,
                done=len(manifest.episodes) - sum(map(len, left.values())),
                maps=EpisodeMaps(dataset=self.dataset, pipeline=self.pipeline),
            )
            # The last one registered is called first: a chunk is in the journal before it is shown.
            with registry.observing([*observers(run), directory]) as hook:
                hook.fssbench_evaluation_started(run=run)
                measure = team.lead if team.count > 1 else _alone
                for part in measure(folder, left, self.parts):
                    directory.add_seconds(part.seconds)
                    hook.fssbench_episodes_measured(
                        run=run,
                        chunk=part.chunk,
                        episodes=part.episodes,
                        rows=part.rows,
                        predictions=part.predictions,
                    )
                record = self.record(
                    manifest,
                    directory.rows(),
                    seconds=directory.seconds,
                    predictions=directory.predictions_digest(),
                )
                directory.finish(record)
                hook.fssbench_evaluation_finished(run=run, record=record)
        return CellOutcome(record=record, folder=folder, fresh=True)

    def record(
        self, manifest: Manifest, rows: pandas.DataFrame, *, seconds: float, predictions: str
    ) -> Record:
        """Summarise a cell's rows.

        Args:
            manifest: the episodes.
            rows: one for each of them.
            seconds: what they took.
            predictions: digest of the masks that are kept, or "".
        """
        return make_record(
            self.job,
            manifest,
            self.pipeline,
            self.checkpoint,
            self.metrics,
            score_size=self.protocol.score_size,
            rows=rows,
            seconds=seconds,
            predictions=predictions,
        )

    def help(self, manifest: Manifest, team: ProcessGroup) -> None:
        """Measure chunks of a cell for the first process of a team."""
        folder, _ = self.place(manifest)
        team.help_with(folder, chunks_of(manifest.episodes), self.parts)

    def parts(self, chunks: Chunks, shared: ChunkQueue | None = None) -> Iterator[ChunkResult]:
        """Measure chunks in this order, as `measured` does."""
        for measured in self.measured(chunks, shared):
            yield ChunkResult.of(measured)

    def measured(self, chunks: Chunks, shared: ChunkQueue | None = None) -> Iterator[Measured]:
        """Measure chunks of episodes, in this order.

        Args:
            chunks: episodes by the chunk's number.
            shared: where several processes take chunks from; None where this one does them all. A
                chunk is claimed when its turn comes; what was loaded for one that another process
                got first is dropped.
        """
        unwanted = (lambda chunk: False) if shared is None else shared.done
        loaded = load_chunks(
            self.cache.plan(chunks, unwanted),
            self.dataset,
            self.pipeline.geometry,
            score_size=self.protocol.score_size,
            void=self.protocol.void,
            workers=min(self.workers, len(chunks)),
            pin=self.pipeline.device.type == "cuda",
        )
        if shared is not None:
            loaded = (data for data in loaded if self._claimed(data, shared))
        return measure_chunks(
            loaded, self.pipeline, self.cache, self.metrics, batch_size=self.job.batch_size
        )

    def _claimed(self, data: ChunkData, shared: ChunkQueue) -> bool:
        if shared.claim(data.task.chunk):
            return True
        self.cache.open(data)  # what it promised to make, others must make now
        return False

    def _settings(self) -> dict[str, Any]:
        """Everything but the manifest that the rows depend on, and whether masks are kept."""
        settings = {
            "matcher": self.job.matcher,
            "config": config_of(self.pipeline.matcher),
            "checkpoint": None if self.checkpoint is None else self.checkpoint.sha256,
            "backbone": self.job.backbone,
            "weights": attrs.asdict(self.pipeline.backbone.weights),
            "metrics": list(self.job.metrics),
            "device": self.pipeline.device.type,
            "precision": self.job.precision,
            "batch_size": self.job.batch_size,
            "torch": torch.__version__,
        }
        # A run without masks keeps the folder that it had before there was such an option.
        if self.job.save_predictions:
            settings["predictions"] = True
        if self.job.cache_half:
            settings["features"] = "float16"
        return settings

    def _folder(self, manifest: Manifest, settings: Mapping[str, Any]) -> Path:
        """``OUT/protocol/matcher--backbone--settings/fold0-1shot-seed0``.

        Readable, and no two methods, options, weights or data sets meet in one folder.
        """
        text = json.dumps([settings, manifest.fingerprint, manifest.limit], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:6]
        method = f"{self.job.matcher}--{self.job.backbone}--{key}"
        cell = f"fold{manifest.fold}-{manifest.shots}shot-seed{manifest.seed}"
        return self.job.out / re.sub(r"[^\w.+-]", "-", manifest.protocol) / method / cell


def _alone(folder: Path, chunks: Chunks, measure: Measure) -> Iterator[ChunkResult]:
    """One process measures everything."""
    del folder
    return measure(chunks, None)
