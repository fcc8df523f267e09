"""Evaluations whose supports are boxes, points or scribbles."""

from __future__ import annotations

import attrs
import numpy
import pytest
import torch
from PIL import Image

from fssbench import Evaluation, dataset
from fssbench.episodes.annotations import weaker
from fssbench.episodes.chunks import chunks_of
from fssbench.evaluation.estimate import estimate
from fssbench.evaluation.evaluate import evaluate, prepare
from fssbench.evaluation.panels import HEIGHT, Panels
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.inference.overlay import SUPPORT, painted
from fssbench.results.record import ROWS_FILE

KINDS = ("box", "point", "scribble")


def rows_of(settings: Evaluation, **changes) -> bytes:
    (result,) = evaluate(attrs.evolve(settings, **changes))
    return (result.folder / ROWS_FILE).read_bytes()


@pytest.mark.slow
def test_a_box_is_no_better_than_the_mask(tmp_path):
    few = {"images_per_split": "120"}
    job = Evaluation(data_options=few, limit=40, folds=(0, 1), workers=0, out=tmp_path)
    kinds = (*KINDS, "no-mask")
    miou = {
        kind: [
            result.record.scores["miou"]
            for result in evaluate(attrs.evolve(job, protocol=f"shapes/v1-1k{suffix}"))
        ]
        for kind, suffix in {"mask": "", **{kind: f"-{kind}" for kind in kinds}}.items()
    }
    mean = {kind: sum(each) / len(each) for kind, each in miou.items()}
    assert len(set(mean.values())) == 5
    for kind in KINDS:
        assert max(5, mean["no-mask"]) < mean[kind] <= mean["mask"], mean


@pytest.mark.parametrize("matcher", ["masked", pytest.param("mixer", marks=pytest.mark.slow)])
def test_rows_are_equal_however_they_are_measured(job, tmp_path, matcher):
    job = attrs.evolve(job, protocol="shapes/v1-1k-scribble", matcher=matcher)
    rows = rows_of(job)
    ways = {
        "workers": {"workers": 2},
        "batches": {"batch_size": 3},
        "tiny": {"cache_memory": 10_000},  # images are loaded again
        "disk": {"cache_dir": tmp_path / "cache"},
        "disk-again": {"cache_dir": tmp_path / "cache"},
    }
    for name, change in ways.items():
        assert rows_of(job, **change, out=tmp_path / name) == rows, name


def test_two_processes_give_the_rows_of_one(tmp_path):
    job = Evaluation(
        protocol="shapes/v1-1k-point", data_options={"images_per_split": "120"}, folds=(0,),
        limit=40, workers=0, device="cpu", out=tmp_path / "one",
    )  # fmt: skip
    assert rows_of(job) == rows_of(job, devices=2, out=tmp_path / "two")


@pytest.mark.slow
def test_caches_hold_the_kinds_apart(job, tmp_path):
    """A method that hides the background encodes other images for each kind."""
    job = attrs.evolve(job, matcher="masked")
    found = []
    for protocol in ("shapes/v1-1k", *(f"shapes/v1-1k-{kind}" for kind in KINDS)):
        rows = rows_of(job, protocol=protocol)
        shared = {"cache_dir": tmp_path / "cache", "out": tmp_path / "cached"}
        assert rows_of(job, protocol=protocol, **shared) == rows
        found.append(rows)
    assert len(set(found)) == 4


def test_the_background_outside_of_a_box_is_hidden(job):
    evaluator = prepare(attrs.evolve(job, protocol="shapes/v1-1k-box", matcher="masked"))
    (manifest,) = evaluator.manifests()
    number, episodes = next(iter(chunks_of(manifest.episodes).items()))
    (data,) = evaluator.cache.load({number: episodes}, score_size="original")
    masked = [key for key in data.task.images if key[1] is not None]
    assert masked
    for key, keep in zip(data.task.images, data.keep, strict=True):
        if key in masked:
            box = weaker(evaluator.dataset.mask(*key), "box", *key)
            assert torch.equal(keep, evaluator.pipeline.geometry.mask(box))


def test_image_matchers_get_the_annotation_and_its_kind(tmp_path):
    job = Evaluation(
        matcher="insid3", encoders={"features": "tiny-vit"}, protocol="shapes/v1-1k-point",
        data_options={"images_per_split": "120"}, folds=(0,), shots=(2,), limit=20, workers=0,
        device="cpu", out=tmp_path,
    )  # fmt: skip
    evaluator = prepare(job)
    (manifest,) = evaluator.manifests()
    ((number, episodes),) = chunks_of(manifest.episodes).items()
    (data,) = evaluator.cache.load(
        {number: episodes}, lambda chunk: False, score_size="original", void="ignore", workers=0
    )
    opened = evaluator.cache.open(data)
    whole = dataset("shapes", images_per_split=120)
    for episode, target in zip(episodes, data.targets, strict=True):
        images = opened.images(episode)
        assert images.support_kind == "point"
        for key, mask in zip(episode.supports(), images.masks, strict=True):
            assert torch.equal(mask, weaker(whole.mask(*key), "point", *key))
        assert torch.equal(target, whole.mask(episode.query, episode.class_id))
    rows = rows_of(job)
    assert rows != rows_of(job, protocol="shapes/v1-1k", out=tmp_path / "whole")
    assert rows == rows_of(job, out=tmp_path / "workers", workers=1)


def test_panels_show_what_the_method_was_given(job):
    job = attrs.evolve(job, protocol="shapes/v1-1k-box")
    (result,) = evaluate(job, observers=lambda run: [Panels(run, 1)])
    (file,) = (result.folder / "panels").glob("*.png")
    (manifest,) = prepare(job).manifests()
    whole = dataset("shapes", images_per_split=120)
    ((image, class_id),) = manifest.episodes[0].supports()
    box = weaker(whole.mask(image, class_id), "box", image, class_id)
    shown = painted(whole.image(image), box, SUPPORT).round().astype(numpy.uint8)
    with Image.open(file) as panel:
        tile = panel.crop((6, 24, 6 + HEIGHT, 24 + HEIGHT))
        expected = Image.fromarray(shown).resize((HEIGHT, HEIGHT))
        assert numpy.array_equal(numpy.array(tile), numpy.array(expected))


def test_records_are_verified_and_estimated(job):
    job = attrs.evolve(job, protocol="shapes/v1-1k-scribble", limit=40)
    (found,) = estimate([job])
    assert found.episodes == 40
    assert not found.done
    (result,) = evaluate(job)
    rerun = Rerun(episodes=10, data_options=job.data_options, workers=0, device="cpu")
    assert verify_record(result.folder, rerun).stands
