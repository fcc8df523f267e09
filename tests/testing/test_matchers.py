"""Tests of the checks of matchers, with a correct matcher and one fault for each check."""

from __future__ import annotations

import random
import unittest
from pathlib import Path

import numpy
import pytest
import torch

from fssbench import FssbenchError, registry
from fssbench.testing import MatcherConformance, NonconformityError, fake_cuda
from fssbench.testing.matcher_subject import MatcherSubject
from fssbench.testing.matchers import CHECKS

PLUGINS = ["methods_for_tests", str(Path(__file__).with_name("broken_matchers.py"))]
BROKEN = [
    ("request", "uneven", "not 60"),
    ("shots", "oneshot", "ValueError: too many values to unpack"),
    ("batch", "coupled", "of the largest"),
    ("non_square", "boxed", "more than two values"),
    ("empty_masks", "divided", "NaN or infinite"),
    ("full_masks", "contrasted", "NaN or infinite"),
    ("ignored_pixels", "greedy", "0 from those with it marked 1"),
    ("ignored_pixels", "weighed", "from those with it marked 0"),
    ("support_matters", "blind", "the same logits"),
    ("maps", "flat", "shape (2,)"),
    ("prepared", "centred", "of the largest"),
    ("prepared", "unlisted", "a list of one value"),
    ("determinism", "restless", "they differ by up to"),
    ("determinism", "unseeded", "base differs"),
    ("generators", "drawing", "torch changed"),
    ("generators", "seeding", "numpy.random"),
    ("stages", "diverging", "infinite"),
    ("stages", "unwritten", "has none"),
    ("stages", "idle", "none of 4 trained tensors changed"),
    ("gradients", "promising", "none for base"),
    ("gradients", "meddling", "base got a gradient or changed"),
    ("gradients", "losing", "1 trained parameters belong to neither"),
    ("state_dict", "forgetful", "neither parameter nor buffer"),
    ("devices", "rooted", "Rooted.grey is not a buffer"),
    ("parameter_counts", "miscounted", "74"),
]


@pytest.fixture
def plugins():
    registry.use_plugins(PLUGINS)
    yield
    registry.use_plugins([])


class TestGood(MatcherConformance):
    plugins = PLUGINS
    matcher = "good"


class TestGoodAsTold(MatcherConformance):
    """All attributes are set."""

    plugins = PLUGINS
    matcher = "good"
    backbone = "pixels"
    weights = "pretrained"
    parameter_counts = {"pixels": 74}  # noqa: RUF012
    recipes = {"episodes": "shapes"}  # noqa: RUF012


@pytest.mark.parametrize(("check", "name", "seen"), BROKEN)
def test_a_broken_matcher_is_found_out(plugins, check, name, seen):
    if check == "devices" and not fake_cuda.works():
        pytest.skip(f"torch {torch.__version__} simulates no GPU")
    outcome = CHECKS[check].outcome(MatcherSubject(name=name))
    assert outcome.verdict == "failed", outcome
    assert seen in f"{outcome.seen} {outcome.expected}"
    assert outcome.expected
    assert "broken_matchers.py:" in outcome.look


def test_every_check_was_seen_to_fail():
    assert {check for check, _, _ in BROKEN} == {check.name for check in CHECKS}


def test_a_failure_says_what_and_where(plugins):
    with pytest.raises(NonconformityError) as caught:
        CHECKS["shots"].run(MatcherSubject(name="oneshot"))
    expected, seen, look = str(caught.value).splitlines()
    assert expected == "expected: One and five shots give finite logits (B, h, w)."
    assert seen == "observed: ValueError: too many values to unpack (expected 1)"
    assert look.startswith("location: embed_support, ")
    assert look.endswith(": (masks,) = support.masks.unbind(1)")
    assert isinstance(caught.value.__cause__, ValueError)


def test_the_class_fails_and_skips_as_pytest_does(plugins):
    class Blind(MatcherConformance):
        plugins = PLUGINS
        matcher = "blind"

    class Plain(MatcherConformance):
        matcher = "prototype"
        backbone = "tiny-resnet"

    Blind.setup_class()
    with pytest.raises(NonconformityError, match="the same logits"):
        Blind().test_support_matters()
    Blind.teardown_class()
    with pytest.raises(unittest.SkipTest, match="no stages"):
        Plain().test_stages()
    assert Plain.test_stages.__doc__.startswith("Every stage has a recipe")


def test_the_class_wants_a_name():
    class Nothing(MatcherConformance):
        pass

    with pytest.raises(FssbenchError, match="Nothing: set the attribute matcher to "):
        Nothing().test_shots()


def test_checks_leave_the_generators_alone(plugins):
    def states():
        return (
            random.getstate(), numpy.random.get_state()[1].tobytes(),
            torch.get_rng_state().numpy().tobytes(),
        )  # fmt: skip

    before = states()
    for name in ("good", "drawing", "seeding"):
        subject = MatcherSubject(name=name)
        for check in CHECKS:
            check.outcome(subject)
    assert states() == before
