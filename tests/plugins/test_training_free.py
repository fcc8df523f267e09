"""The example of a method without training, in `training_free.py`."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from discs_for_tests import episode

import fssbench
from fssbench import registry
from fssbench.cli import _run
from fssbench.testing import ImageMatcherConformance

FILE = Path(__file__).with_name("training_free.py")
ENCODERS = {"features": "tiny-vit", "masks": "promptable-tiny-sam"}


@pytest.fixture(scope="module")
def matcher():
    registry.use_plugins([str(FILE)])
    weights = {"features": "pretrained", "masks": "random"}
    yield fssbench.image_matcher("two-points", ENCODERS, weights)
    registry.use_plugins([])


class TestConformance(ImageMatcherConformance):
    plugins = (str(FILE),)
    matcher = "two-points"


def test_it_is_evaluated_by_its_file(tmp_path, capsys):
    encoders = [f"--encoder={role}={name}" for role, name in ENCODERS.items()]
    small = ["--fold", "0", "--limit", "6", "-d", "images_per_split=60", "--workers", "0"]
    command = ["evaluate", "two-points", "-p", str(FILE), *encoders, "--weights", "masks=random"]
    out = tmp_path / "runs"
    assert _run([*command, *small, "--shots", "1,2", "--out", str(out)]) == 0
    assert "two-points on tiny-vit+promptable-tiny-sam (random)" in capsys.readouterr().out
    rows = [gzip.decompress(path.read_bytes()) for path in out.rglob("rows.csv.gz")]
    assert [len(each.splitlines()) for each in rows] == [7, 7]


def test_it_is_short():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 80


@pytest.mark.parametrize("shots", [1, 3])
@torch.no_grad()
def test_points_are_on_the_object_and_off_it(matcher, shots):
    given = episode(shots, size=(120, 90))
    similarity = matcher.maps(given)["similarity"]
    assert similarity.shape == (20, 20)
    points, labels = matcher.prompt(similarity, (120, 90))
    assert labels.tolist() == [[1, 0]]
    red = given.query[0] > 200
    inside, outside = (bool(red[int(y), int(x)]) for x, y in points[0])
    assert inside
    assert not outside


def test_points_are_centres_of_cells(matcher):
    similarity = torch.tensor([[0.1, 0.2, 0.9], [-0.5, 0.0, 0.3]])
    points, _ = matcher.prompt(similarity, (20, 60))
    assert points.tolist() == [[[50, 5], [10, 15]]]


@torch.no_grad()
def test_the_best_mask_is_refined_with_its_box(matcher, monkeypatch):
    given, calls = episode(size=(120, 90)), []
    sam = matcher.encoders["masks"].module
    predict = sam.predict

    def recorded(*arguments, **prompts):
        calls.append((prompts, predict(*arguments, **prompts)))
        return calls[-1][1]

    monkeypatch.setattr(sam, "predict", recorded)
    logits = matcher.predict(given)
    (_, first), (prompts, second) = calls
    assert first.logits.shape == (1, 3, 120, 90)
    assert torch.equal(logits, second.logits[0, 0])
    best = first.iou[0].argmax()
    inside = first.logits[0, best] > 0
    left, top, right, bottom = prompts["boxes"][0].int().tolist()
    assert inside[top:bottom, left:right].sum() == inside.sum() > 0
    assert inside[top].any() and inside[bottom - 1].any()  # noqa: PT018
    assert inside[:, left].any() and inside[:, right - 1].any()  # noqa: PT018
    assert torch.equal(prompts["masks"], first.low_resolution[:, best])


@torch.no_grad()
def test_an_empty_mask_is_not_refined(matcher, monkeypatch):
    sam = matcher.encoders["masks"].module
    empty = fssbench.SamMasks(
        logits=torch.full((1, 3, 120, 90), -1.0), iou=torch.tensor([[0.1, 0.3, 0.2]]),
        low_resolution=torch.full((1, 3, 40, 40), -1.0),
    )  # fmt: skip
    monkeypatch.setattr(sam, "predict", lambda *_, multimask, **__: empty)
    assert matcher.predict(episode(size=(120, 90))).eq(-1).all()
