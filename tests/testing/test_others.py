"""Tests of the other checks, with a correct object and one fault for each check."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssbench import registry
from fssbench.testing import (
    BackboneConformance,
    DatasetConformance,
    MetricConformance,
    SamplerConformance,
)
from fssbench.testing.plugin import KINDS, Settings

PLUGINS = ["methods_for_tests", str(Path(__file__).with_name("broken_others.py"))]
BROKEN = {
    "dataset": [
        ("description", "misnamed", "2 names, 1 different"),
        ("folds", "endless", "no error"),
        ("images", "shuffled", "another order"),
        ("pixels", "valued", "[0, 200]"),
        ("class_pixels", "uncounted", "7"),
        ("unknown_image", "anything", "no error"),
        ("fingerprint", "fleeting", "then"),
        ("determinism", "noisy", "torch changed"),
        ("pickling", "local", "pickle"),
    ],
    "backbone": [
        ("description", "elsewhere", "/home/me/weights.pth"),
        ("layers", "strided", "(2, 3, 8, 8)"),
        ("before_relu", "rectified", "relu of cells4:pre"),
        ("non_square", "squared", "(16, 16)"),
        ("wrong_requests", "lenient", "no error"),
        ("frozen", "warm", "['scale']"),
        ("batch", "standing", "of the largest value"),
        ("determinism", "fickle", "of the largest value"),
        ("generators", "seeded", "torch changed"),
        ("devices", "tied", "device"),
    ],
    "metric": [
        ("columns", "short", "torch.int32"),
        ("rows_stand_alone", "relative", "alone"),
        ("ignored_pixels", "careless", "on all ignored pixels"),
        ("extremes", "ratio", "nan"),
        ("prediction_matters", "constant", "the same rows"),
        ("purity", "changing", "`measure` changed one"),
        ("scores", "ordered", "backwards"),
        ("missing_classes", "tolerant", "no error"),
    ],
    "sampler": [
        ("episodes", "single", "[1]"),
        ("from_the_lists", "echoing", "is both"),
        ("from_the_lists", "opening", "was opened"),
        ("every_class", "partial", "none of class"),
        ("determinism", "chance", "episode 0 differs"),
        ("generators", "seeding", "random changed"),
        ("pool_unchanged", "sorting", "changed"),
    ],
    "protocol": [
        ("names", "squares/nowhere", "no sampler is called"),
        ("manifests", "squares/huge", "too few"),
        ("manifests", "squares/chance", "digests"),
    ],
}
ALL = [(kind, *each) for kind, cases in BROKEN.items() for each in cases]
GOOD = {
    "dataset": "squares", "backbone": "encoder", "metric": "area", "sampler": "fair",
    "protocol": "squares/fine",
}  # fmt: skip


@pytest.fixture
def plugins():
    registry.use_plugins(PLUGINS)
    yield
    registry.use_plugins([])


class TestSquares(DatasetConformance):
    plugins = PLUGINS
    dataset = "squares"


class TestEncoder(BackboneConformance):
    plugins = PLUGINS
    backbone = "encoder"


class TestArea(MetricConformance):
    plugins = PLUGINS
    metric = "area"


class TestFair(SamplerConformance):
    plugins = PLUGINS
    sampler = "fair"


@pytest.mark.parametrize(("kind", "check", "name", "seen"), ALL)
def test_a_broken_one_is_found_out(plugins, kind, check, name, seen):
    checks, make = KINDS[kind]
    outcome = checks[check].outcome(make(name, Settings()))
    assert outcome.verdict == "failed", outcome
    assert seen in f"{outcome.seen} {outcome.expected}", outcome
    if kind != "protocol":
        assert ".py:" in outcome.look


@pytest.mark.parametrize("kind", BROKEN)
def test_every_check_was_seen_to_fail(kind):
    checks, _ = KINDS[kind]
    assert {check for check, _, _ in BROKEN[kind]} == {check.name for check in checks}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_one_passes_all(plugins, kind):
    checks, make = KINDS[kind]
    subject = make(GOOD[kind], Settings())
    assert {check.outcome(subject).verdict for check in checks} == {"passed"}
