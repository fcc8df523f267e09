"""Creation of the record of an evaluation."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import cattrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.evaluation.evaluation import Evaluation
from fssbench.inference import cost
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.pipeline import Pipeline
from fssbench.matchers.checkpoint import Checkpoint
from fssbench.matchers.matcher import config_of
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric
from fssbench.results.record import (
    CheckpointInfo,
    ClassScore,
    CodeInfo,
    Cost,
    DatasetInfo,
    EncoderInfo,
    ManifestInfo,
    Record,
    Weights,
)
from fssbench.runtime.code import Code
from fssbench.runtime.environment import environment
from fssbench.statistics.intervals import score_intervals
from fssbench.unaccounted import unaccounted_parameters


def make_record(
    settings: Evaluation,
    manifest: Manifest,
    pipeline: Pipeline | ImagePipeline,
    checkpoint: Checkpoint | None,
    metrics: Sequence[Metric],
    *,
    score_size: str,
    rows: pandas.DataFrame,
    seconds: float,
    predictions: str = "",
    images: str = "",
    drawn: Sequence[str] = (),
    code: Mapping[str, Code],
    flops: int | None,
    folds_of: str,
    overlap: tuple[str, ...] | None,
    tested_images: int | None,
) -> Record:
    """Return the record: scores of the rows, and a description of the evaluation.

    Args:
        settings: settings of the evaluation.
        manifest: evaluated episodes.
        pipeline: matcher and its encoders.
        checkpoint: trained weights of the matcher, or None.
        metrics: measured metrics.
        score_size: score size of the protocol.
        rows: one row for each episode.
        seconds: total time of all episodes, including loading.
        predictions: digest of the saved masks, or "".
        images: digest of the content of the images.
        drawn: values of the matcher from the global random generators, see `drawn_values`.
        code: code that computed the rows, by package.
        flops: floating-point operations of an episode; None if unknown.
        folds_of: name of the dataset whose folds divide the classes.
        overlap: names of the novel classes that the checkpoint was trained on; None if unknown.
        tested_images: number of the manifest's images that it was trained on; None if unknown.
    """
    encoders = pipeline.encoders if isinstance(pipeline, ImagePipeline) else {}
    return Record(
        **result_fields(
            manifest, metrics, score_size=score_size, rows=rows, images=images, folds_of=folds_of
        ),
        matcher=settings.matcher,
        config=config_of(pipeline.matcher),
        checkpoint=None
        if checkpoint is None
        else CheckpointInfo(**checkpoint.reference(), header=checkpoint.header),
        backbone=settings.backbone,
        weights=Weights(**attrs.asdict(pipeline.weights)),
        features=cattrs.unstructure(pipeline.request) if isinstance(pipeline, Pipeline) else {},
        cost=Cost(
            learnable_parameters=cost.learnable_parameters(pipeline),
            backbone_parameters=cost.backbone_parameters(pipeline),
            flops_per_episode=flops,
            seconds_per_episode=seconds / len(manifest.episodes),
            peak_memory_mib=cost.peak_memory_mib(pipeline.device),
        ),
        environment={
            **environment(pipeline.device),
            "precision": settings.precision,
            "batch_size": settings.batch_size,
            **({"features": "float16"} if settings.cache_half else {}),
        },
        predictions=predictions,
        code={name: CodeInfo(**attrs.asdict(each)) for name, each in code.items()},
        unaccounted=(
            *unaccounted_parameters(pipeline.matcher, pipeline.frozen, checkpoint),
            *drawn,
        ),
        encoders={
            role: EncoderInfo(
                name=encoder.name,
                weights=Weights(**attrs.asdict(encoder.weights)),
                parameters=encoder.parameters,
            )
            for role, encoder in encoders.items()
        },
        uses=pipeline.matcher.uses,
        overlap=overlap,
        tested_images=tested_images,
    )


def result_fields(
    manifest: Manifest,
    metrics: Sequence[Metric],
    *,
    score_size: str,
    rows: pandas.DataFrame,
    images: str,
    folds_of: str,
) -> dict[str, Any]:
    """Return the fields of a `Record` that follow from episodes, images and rows.

    Args:
        manifest: evaluated episodes.
        metrics: measured metrics.
        score_size: score size of the protocol.
        rows: one row for each episode.
        images: digest of the content of the images.
        folds_of: name of the dataset whose folds divide the classes.
    """
    scores: dict[str, float] = {}
    for metric in metrics:
        scores.update(metric.summarise(rows, manifest.class_ids))
    table = IoU().per_class(rows, manifest.class_ids)
    return {
        "protocol": manifest.protocol,
        "fold": manifest.fold,
        "shots": manifest.shots,
        "seed": manifest.seed,
        "ways": manifest.ways,
        "score_size": score_size,
        "dataset": DatasetInfo(
            name=manifest.dataset,
            split=manifest.split,
            fingerprint=manifest.fingerprint,
            images=images,
            folds_of=folds_of,
        ),
        "manifest": ManifestInfo(
            digest=manifest.digest,
            episodes=len(manifest.episodes),
            classes=manifest.class_ids,
            dropped=tuple(name for _, name in manifest.dropped),
            limit=manifest.limit,
        ),
        "scores": scores,
        "intervals": score_intervals([rows]),
        "per_class": tuple(
            ClassScore(
                class_id=class_id,
                name=manifest.class_name(class_id),
                episodes=int(table["episodes"][class_id]),
                iou=float(table["iou"][class_id]),
                background_iou=float(table["background_iou"][class_id]),
            )
            for class_id in manifest.class_ids
        ),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
