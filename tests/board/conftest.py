"""Synthetic results: consistent rows, manifests and records without any evaluation."""

from collections.abc import Callable
from pathlib import Path

import attrs
import numpy
import pandas
import pytest
from records_for_tests import record_of

from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.results.record import MANIFEST_FILE, ROWS_FILE, CheckpointInfo
from fssbench.results.rows import write_rows

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
