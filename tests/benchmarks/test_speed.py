"""Speed of everything but the models: ``tox -e bench``.

Pictures have the size of PASCAL's (375 x 500), the encoder's input is 384.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fssbench import (
    Backbone,
    BackboneInfo,
    FeatureRequest,
    LayerInfo,
    Matcher,
    WeightsInfo,
    build_manifest,
    dataset,
    metric,
)
from fssbench.data.dataset import Dataset
from fssbench.data.geometry import Geometry
from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.manifest import Manifest
from fssbench.evaluation.measure import measure_chunks
from fssbench.evaluation.run_directory import RunDirectory
from fssbench.inference.chunk_loader import load_chunks
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.pipeline import Pipeline
from fssbench.registry import registry
from fssbench.specs import ProtocolSpec

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def pascal(tmp_path_factory):
    """A PASCAL-sized val split: 60 images of 375 x 500 in the official layout."""
    root = tmp_path_factory.mktemp("voc")
    base = root / "VOC2012"
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (base / name).mkdir(parents=True)
    generator = np.random.default_rng(0)
    names = [f"2007_{i:06d}" for i in range(60)]
    for i, name in enumerate(names):
        coarse = generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        picture.save(base / "JPEGImages" / f"{name}.jpg", quality=90)
        labels = np.zeros((375, 500), dtype=np.uint8)
        labels[40 + i : 260 + i, 60 : 300 + 2 * i] = 1 + i % 5
        labels[38 + i : 40 + i, 60 : 300 + 2 * i] = 255
        mask = Image.fromarray(labels, mode="P")
        mask.putpalette(generator.integers(0, 256, 768, dtype=np.uint8).tobytes())
        mask.save(base / "SegmentationClassAug" / f"{name}.png")
    (base / "ImageSets/Segmentation/val.txt").write_text("\n".join(names) + "\n")
    return dataset("pascal5i", root)


class CocoSized(Dataset):
    """40,000 images with three of 80 classes each, as COCO's val split; annotations only."""

    name = "coco20i"
    folds = 4
    classes = tuple(f"class{c}" for c in range(80))

    def __init__(self):
        self.pixels = {
            f"{i:012d}": {(i * k + i // 80) % 80: 5000 for k in (1, 3, 7)} for i in range(40_000)
        }

    def fold_classes(self, fold):
        return tuple(range(fold, 80, 4))

    def image_ids(self, split):
        return list(self.pixels)

    def class_pixels(self, image_id):
        return self.pixels[image_id]

    def image(self, image_id):
        raise AssertionError("a manifest needs no image")

    mask = image

    def fingerprint(self, split="val"):
        return "0" * 64


class Free(Backbone):
    """Features that cost nothing."""

    def __init__(self):
        super().__init__()
        self.info = BackboneInfo(
            name="free", layers={"all": LayerInfo(1, 32)}, image_size=384, multiple=32
        )
        self.weights = WeightsInfo(source="none")
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, images, layers):
        return {"all": images[:, :1, ::32, ::32]}


class Idle(Matcher):
    """Logits that cost nothing: the feature itself."""

    def request(self):
        return FeatureRequest(layers=("all",), size=384)

    def embed_support(self, support):
        return support.masks

    def segment(self, query, support):
        return query["all"][:, 0] - 0.5


def test_building_a_manifest_of_10000_episodes(benchmark):
    data = CocoSized()
    protocol = registry().get(ProtocolSpec, "coco20i/v1-10k")
    manifest = benchmark(lambda: build_manifest(protocol, data, fold=0, shots=5))
    assert len(manifest.episodes) == 10_000


def test_digest_of_10000_episodes(benchmark):
    protocol = registry().get(ProtocolSpec, "coco20i/v1-10k")
    manifest = build_manifest(protocol, CocoSized(), fold=0, shots=5)
    assert len(benchmark(lambda: manifest.digest)) == 64


def test_decoding_a_mask(benchmark, pascal):
    assert benchmark(lambda: pascal.mask("2007_000003", 3)).shape == (375, 500)


def test_decoding_and_resizing_an_image(benchmark, pascal):
    geometry = Geometry(384)
    image = benchmark(lambda: geometry.image(pascal.image("2007_000003")))
    assert image.shape == (3, 384, 384)


def test_resizing_logits_to_the_image(benchmark):
    geometry, logits = Geometry(384), torch.randn(96, 96)
    assert benchmark(lambda: geometry.restore(logits, 375, 500) > 0).shape == (375, 500)


def test_counting_pixels(benchmark):
    prediction = torch.rand(1, 375, 500) > 0.5
    target = torch.randint(0, 2, (1, 375, 500), dtype=torch.uint8)
    iou = metric("iou")
    assert len(benchmark(lambda: iou.measure(prediction, target))) == 4


@pytest.mark.parametrize("shots", [1, 5])
def test_evaluation_overhead_of_1000_episodes(benchmark, pascal, tmp_path, shots):
    """All that an evaluation does but the model, with features cached: at most 3 ms an episode.

    Reading and resizing masks, resizing logits, counting, rows, journal. Divide the time by 1,000.
    """
    protocol = registry().get(ProtocolSpec, "pascal5i/v1-1k")
    manifest = build_manifest(protocol, pascal, fold=0, shots=shots)
    backbone = Free()
    matcher = Idle(config=None, backbone=backbone.info)
    pipeline = Pipeline(matcher, backbone, device=torch.device("cpu"))
    cache = FeatureCache(pipeline, pascal, 1 << 30)
    count = iter(range(1000))

    def evaluate() -> int:
        return len(_evaluate(manifest, pascal, pipeline, cache, tmp_path / str(next(count))))

    evaluate()  # fills the cache
    assert benchmark.pedantic(evaluate, rounds=3) == 1000


def _evaluate(manifest: Manifest, data, pipeline, cache, folder):
    with RunDirectory(folder, {"speed": 1}, manifest) as directory:
        tasks = cache.plan(chunks_of(manifest.episodes))
        loaded = load_chunks(tasks, data, pipeline.geometry, score_size="original", workers=1)
        measured = measure_chunks(loaded, pipeline.device, cache, [metric("iou")], batch_size=1)
        for result in measured:
            directory.add(result)
        return directory.rows()
