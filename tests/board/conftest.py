"""Synthetic results: consistent rows, manifests and records without any evaluation."""

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy
import pandas
import pytest

from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.metrics.iou import IoU
from fssbench.results.record import (
    MANIFEST_FILE,
    ROWS_FILE,
    CheckpointInfo,
    ClassScore,
    Cost,
    DatasetInfo,
    ManifestInfo,
    Record,
    Weights,
)
from fssbench.results.rows import write_rows
from fssbench.statistics.intervals import score_intervals

EPISODES = 24


def manifest_of(protocol: str, dataset: str, fingerprint: str, fold: int, shots: int, draw: int):
    generator = numpy.random.default_rng([fold, shots, draw])
    classes = (3 * fold, 3 * fold + 1)
    images = generator.integers(0, 12, size=(EPISODES, 1 + shots))
    return Manifest(
        protocol=protocol,
        dataset=dataset,
        split="val",
        fingerprint=fingerprint,
        fold=fold,
        shots=shots,
        seed=0,
        limit=None,
        classes=tuple((class_id, f"class {class_id}") for class_id in classes),
        dropped=((3 * fold + 2, "toaster"),),
        episodes=tuple(
            Episode(
                index=index,
                class_id=classes[index % 2],
                query=f"image-{query}",
                support=tuple(f"image-{20 + image}" for image in support),
            )
            for index, (query, *support) in enumerate(images.tolist())
        ),
    )


def rows_of(manifest: Manifest, quality: float, luck: int) -> pandas.DataFrame:
    """Return counts with IoUs around `quality`; equal arguments give equal counts."""
    generator = numpy.random.default_rng([luck, manifest.fold])
    count = len(manifest.episodes)
    union = generator.integers(200, 2000, size=count)
    share = numpy.clip(quality + generator.normal(0, 0.1, size=count), 0, 1)
    return pandas.DataFrame(
        {
            "index": [episode.index for episode in manifest.episodes],
            "class_id": [episode.class_id for episode in manifest.episodes],
            "query": [episode.query for episode in manifest.episodes],
            "intersection_fg": (share * union).astype("int64"),
            "union_fg": union,
            "intersection_bg": 8000 - union,
            "union_bg": numpy.full(count, 8000) - (share * union).astype("int64"),
        }
    )


def record_of(manifest: Manifest, rows: pandas.DataFrame, **fields: object) -> Record:
    table = IoU().per_class(rows, manifest.class_ids)
    record = Record(
        protocol=manifest.protocol,
        fold=manifest.fold,
        shots=manifest.shots,
        seed=manifest.seed,
        score_size="original",
        dataset=DatasetInfo(
            name=manifest.dataset, split=manifest.split, fingerprint=manifest.fingerprint
        ),
        manifest=ManifestInfo(
            digest=manifest.digest,
            episodes=len(manifest.episodes),
            classes=manifest.class_ids,
            dropped=tuple(name for _, name in manifest.dropped),
            limit=manifest.limit,
        ),
        matcher="prototype",
        config={"layers": ["last"], "temperature": 10.0},
        checkpoint=None,
        backbone="resnet50",
        weights=Weights(source="pretrained", name="resnet50.a1_in1k", sha256="ab" * 32),
        features={"layers": ["layer4"], "size": 473},
        scores=IoU().summarise(rows, manifest.class_ids),
        intervals=score_intervals([rows]),
        per_class=tuple(
            ClassScore(
                class_id=int(class_id),
                name=manifest.class_name(int(class_id)),
                episodes=int(line["episodes"]),
                iou=float(line["iou"]),
                background_iou=float(line["background_iou"]),
            )
            for class_id, line in table.iterrows()
        ),
        cost=Cost(
            learnable_parameters=0,
            backbone_parameters=23_508_032,
            flops_per_episode=None,
            seconds_per_episode=0.0123,
            peak_memory_mib=512.0,
        ),
        environment={"device": "cpu", "precision": "fp32", "batch_size": 1},
        created="2026-01-01T00:00:00+00:00",
    )
    return attrs.evolve(record, **fields)


class Runs:
    """Writer of finished runs below a folder; `fields` replace those of the record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def add(
        self,
        matcher: str = "prototype",
        *,
        fold: int = 0,
        shots: int = 1,
        quality: float = 0.5,
        luck: int = 0,
        draw: int = 0,
        limit: int | None = None,
        protocol: str = "pascal5i/v1-1k",
        dataset: str = "pascal5i",
        fingerprint: str = "f1" * 32,
        images: str = "",
        **fields: object,
    ) -> Path:
        manifest = manifest_of(protocol, dataset, fingerprint, fold, shots, draw)
        manifest = manifest.limited(limit) if limit else manifest
        rows = rows_of(manifest, quality, luck)
        folder = self.root / f"run-{self.count}"
        self.count += 1
        manifest.write(folder / MANIFEST_FILE)
        write_rows(rows, folder / ROWS_FILE)
        record = record_of(manifest, rows, matcher=matcher, **fields)
        attrs.evolve(record, dataset=attrs.evolve(record.dataset, images=images)).write(folder)
        return folder

    def folds(self, matcher: str = "prototype", **options: object) -> list[Path]:
        return [self.add(matcher, fold=fold, **options) for fold in range(4)]


@pytest.fixture(scope="session")
def runs_below() -> type[Runs]:
    return Runs


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "runs")


@pytest.fixture
def trained() -> Callable[..., CheckpointInfo]:
    """Return the checkpoint of a fold."""

    def make(fold: int, **header: object) -> CheckpointInfo:
        facts = {"matcher": "dcama", "dataset": "pascal5i", "fold": fold, "seed": 0, **header}
        name = f"dcama-fold{fold}.safetensors"
        return CheckpointInfo(name=name, sha256="abcd"[fold] * 64, header=facts)

    return make
