"""Conformance tests of the objects that are bundled with fssbench."""

from __future__ import annotations

import shutil
from typing import ClassVar

import pytest
from PIL import Image

import fssbench
from fssbench import registry
from fssbench.specs import BackboneSpec, MatcherSpec
from fssbench.testing import (
    DatasetConformance,
    MatcherConformance,
    MetricConformance,
    SamplerConformance,
)
from fssbench.testing.backbones import CHECKS as BACKBONE_CHECKS
from fssbench.testing.backbones import BackboneSubject
from fssbench.testing.datasets import CHECKS as DATASET_CHECKS
from fssbench.testing.datasets import DatasetSubject
from fssbench.testing.plugin import KINDS, Settings

SMALL = ("filterbank", "mobilenetv2", "tiny-resnet", "tiny-sam", "tiny-vit")
MINI = {"pascal5i": "voc_mini", "coco20i": "coco_mini", "fss1000": "fss_mini"}


class TestPrototype(MatcherConformance):
    matcher = "prototype"
    parameter_counts = {"tiny-resnet": 0}  # noqa: RUF012


class TestDcama(MatcherConformance):
    matcher = "dcama"


class TestHdmNet(MatcherConformance):
    """Stage ``meta`` starts from stage ``base``."""

    matcher = "hdmnet"


class TestHsNet(MatcherConformance):
    matcher = "hsnet"


class TestFsDino(MatcherConformance):
    """Three stages of distillation with a random teacher, and one on episodes."""

    matcher = "fsdino"


class TestUinoFss(MatcherConformance):
    matcher = "uinofss"


class TestUinoFssComp(MatcherConformance):
    matcher = "uinofss-comp"


class TestUinoFssCompFrozen(MatcherConformance):
    matcher = "uinofss-comp-frozen"


class TestRePri(MatcherConformance):
    matcher = "repri"


class TestShapes(DatasetConformance):
    dataset = "shapes"
    options = {"images_per_split": 60}  # noqa: RUF012


class TestIoU(MetricConformance):
    metric = "iou"


class TestRegions(MetricConformance):
    metric = "regions"


class TestBoundary(MetricConformance):
    metric = "boundary"


class TestClassBalanced(SamplerConformance):
    sampler = "class-balanced"


class TestWrongMask(SamplerConformance):
    sampler = "wrong-mask"


class TestSharedClass(SamplerConformance):
    sampler = "shared-class"
    options: ClassVar = {"images_per_split": 900}  # few images have a given pair of classes


class TestHsnetListOrder(SamplerConformance):
    sampler = "hsnet-list-order"


class TestHsnetClassUniform(SamplerConformance):
    sampler = "hsnet-class-uniform"


class TestImageSequential(SamplerConformance):
    sampler = "image-sequential"


def test_the_authors_numbers_of_parameters_are_declared():
    specs = registry.registry().specs(MatcherSpec)
    assert specs["dcama"].parameter_counts == {"resnet50": 14_215_394}
    assert specs["hsnet"].parameter_counts == {"resnet50": 2_573_794, "resnet101": 2_587_394}
    assert specs["hdmnet"].parameter_counts == {"resnet50-psp": 4_161_734}
    assert specs["repri"].parameter_counts == {"resnet50-psp": 23_082_000}


def failures(checks, subject):
    outcomes = [check.outcome(subject) for check in checks]
    return [each for each in outcomes if each.verdict != "passed"]


LARGE = {
    spec.name for spec in registry.registry().specs(BackboneSpec).values() if spec.features
} - set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_small_backbones(name):
    assert not failures(BACKBONE_CHECKS, BackboneSubject(name=name))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LARGE))
def test_large_backbones(name):
    # Each needs several times half a gigabyte or more of memory.
    if name in ("dinov2-l", "sam-vit-l", "sam-vit-h"):
        pytest.skip("the same code as the smaller ones of its family")
    assert not failures(BACKBONE_CHECKS, BackboneSubject(name=name))


@pytest.mark.realdata
@pytest.mark.parametrize("name", MINI)
def test_datasets_with_files(name, shared_data):
    subject = DatasetSubject(name=name, root=shared_data / MINI[name])
    assert not failures(DATASET_CHECKS, subject)


@pytest.fixture
def pictures(tmp_path):
    """Two classes of the dataset ``folder``; images alone for the dataset ``images``."""
    shapes = fssbench.dataset("shapes", images_per_split=12)
    for image_id in shapes.image_ids("val"):
        class_id, *_ = shapes.class_pixels(image_id)
        folder = tmp_path / f"class{class_id % 2}"
        folder.mkdir(exist_ok=True)
        image = shapes.image(image_id).permute(1, 2, 0).numpy()
        Image.fromarray(image).crop((0, 0, 160, 120)).save(folder / f"{image_id}.jpg")
        mask = Image.fromarray(shapes.mask(image_id, class_id).numpy())
        mask.crop((0, 0, 160, 120)).save(folder / f"{image_id}.png")
    return tmp_path


def test_ones_own_folders(pictures):
    assert not failures(DATASET_CHECKS, DatasetSubject(name="folder", root=pictures))
    for mask in list(pictures.rglob("*.png")):
        mask.unlink()
    assert not failures(DATASET_CHECKS, DatasetSubject(name="images", root=pictures))
    shutil.rmtree(pictures)


def test_protocols_without_files():
    checks, make = KINDS["protocol"]
    for name, images in (("", 60), ("-wrong-mask", 60), ("-shared-class", 900)):
        settings = Settings(data_options={"images_per_split": images})
        assert not failures(checks, make(f"shapes/v1-1k{name}", settings))
    outcomes = [check.outcome(make("coco20i/v1-1k", Settings())) for check in checks]
    assert [outcome.verdict for outcome in outcomes] == ["passed", "skipped"]
