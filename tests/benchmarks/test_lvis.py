"""Time and memory of indexing LVIS and COCO, and the time of drawing episodes over LVIS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import attrs
import numpy as np
import pytest
from bench_report import TABLES
from lvis_like import KINDS, write

from fssbench.data.coco_masks import CocoMasks
from fssbench.data.lvis import Lvis92i
from fssbench.episodes.protocol import build_manifest
from fssbench.registry import registry
from fssbench.specs import ProtocolSpec

pytestmark = pytest.mark.benchmark

SHARE = float(os.environ.get("FSSBENCH_BENCH_SHARE", "0.1"))
"""Share of the annotations of LVIS and COCO."""
GIB = 1 << 30
MOST_SECONDS, MOST_BYTES = 600, 2 * GIB
"""Limits for the training annotations of LVIS."""

# A process of its own, since the largest resident set of a process never shrinks; KiB on Linux.
MEASURE = """
import resource, sys, time
from pathlib import Path
from lvis_like import KINDS
from fssbench.data.cache import saved_or_built
from fssbench.data.coco_masks import CocoMasks, read_annotations

def build():
    return read_annotations(Path(path), "union", KINDS[kind].categories)

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

kind, path = sys.argv[1:]
before, start = peak(), time.perf_counter()
saved_or_built(kind, build, CocoMasks.from_arrays)
print(time.perf_counter() - start, before, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_indexing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark) -> None:
    path = tmp_path / f"{kind}.json"
    images, annotations = write(path, KINDS[kind], SHARE)
    monkeypatch.setenv("FSSBENCH_CACHE", str(tmp_path / "cache"))
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))

    def run() -> list[float]:
        command = [sys.executable, "-c", MEASURE, kind, str(path)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return [float(number) for number in done.stdout.split()]

    seconds, before, peak = benchmark.pedantic(run, rounds=1)
    whole_seconds, whole_bytes = seconds / SHARE, before + (peak - before) / SHARE
    TABLES["indexing training annotations"].append(
        {
            "like": kind, "share": SHARE, "MB": path.stat().st_size // 10**6, "images": images,
            "annotations": annotations, "seconds": f"{seconds:.1f}",
            "peak, MiB": peak // 2**20, "MiB before": before // 2**20,
            "whole, seconds": f"{whole_seconds:.0f}", "whole, MiB": f"{whole_bytes / 2**20:.0f}",
        }
    )  # fmt: skip
    assert whole_seconds < MOST_SECONDS
    assert whole_bytes < MOST_BYTES


def lvis_sized(images: int = 19_809, pairs: int = 180_000, classes: int = 1203) -> CocoMasks:
    """Masks of LVIS's val in number, of one pixel each; classes are as frequent as words are."""
    generator = np.random.default_rng(0)
    chances = 1 / np.arange(1, classes + 1)
    drawn = generator.choice(classes, pairs, p=chances / chances.sum())
    entries = np.unique(np.stack([generator.integers(0, images, pairs), drawn], 1), axis=0)
    count = len(entries)
    return CocoMasks(
        numbers=np.arange(images), file_names=[f"{n}.jpg" for n in range(images)],
        sizes=np.full((images, 2), 480), class_ids=entries[:, 1], pixels=np.ones(count, int),
        starts=np.searchsorted(entries[:, 0], np.arange(images + 1)),
        cuts=np.zeros(2 * count + 1, int), runs=np.zeros(0, np.uint8), left_out=np.array(0),
    )  # fmt: skip


def test_drawing_10000_episodes(benchmark) -> None:
    dataset = Lvis92i.__new__(Lvis92i)  # without files: the masks are those of `lvis_sized`
    dataset.classes = tuple(f"class_{number}" for number in range(1203))
    dataset._masks, dataset._fingerprints = {"val": lvis_sized()}, {"val": "0" * 64}
    protocol = registry().get(ProtocolSpec, "lvis92i/v1-1k")
    protocol = attrs.evolve(protocol, episodes=10_000)
    assert len(dataset.fold_classes(0)) == 92

    def draw():
        return build_manifest(protocol, dataset, fold=0, shots=5)

    start = time.perf_counter()
    manifest = benchmark.pedantic(draw, rounds=3)
    assert (time.perf_counter() - start) / 3 < 5
    assert len(manifest.episodes) == 10_000
    TABLES["drawing 10,000 episodes over LVIS"].append(
        {"classes of the fold": len(manifest.classes), "images": len(dataset.image_ids("val")),
         "seconds": f"{benchmark.stats.stats.median:.2f}"}
    )  # fmt: skip
