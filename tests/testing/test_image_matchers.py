"""Tests of the checks of image matchers, with correct matchers and one fault for each check."""

from __future__ import annotations

from pathlib import Path

import pytest

from fssbench import registry
from fssbench.testing import ImageMatcherConformance, NonconformityError
from fssbench.testing.image_matchers import CHECKS, ImageMatcherSubject

PLUGIN = str(Path(__file__).with_name("image_methods.py"))
BROKEN = [
    ("shots", "oneshot", "too many values to unpack"),
    ("shots", "small", "expected float logits of that size"),
    ("batch", "coupled", "of the largest"),
    ("non_square", "square", "(128, 72)"),
    ("empty_masks", "divided", "NaN or infinity"),
    ("full_masks", "contrasted", "NaN or infinity"),
    ("ignored_masks", "certain", "NaN or infinity"),
    ("small_masks", "coarse", "NaN or infinity"),
    ("support_matters", "blind", "the same in all 3 episodes"),
    ("support_matters", "nameless", "the same in all 3 episodes"),
    ("independence", "remembering", "they differ"),
    ("independence", "leaking", "they differ"),
    ("independence", "replacing", "offset was added, removed or replaced"),
    ("inputs", "writing", "changed one of them"),
    ("generators", "drawing", "numpy.random changed"),
    ("maps", "flat", "shape (3,)"),
    ("parameters", "hiding", "12 parameters of Linear in hidden"),
    ("parameters", "owning", "are among those of the matcher"),
    ("state_dict", "forgetful", "they differ"),
]


@pytest.fixture
def plugins():
    registry.use_plugins([PLUGIN])
    yield
    registry.use_plugins([])


class TestSimilar(ImageMatcherConformance):
    plugins = (PLUGIN,)
    matcher = "image-similar"


class TestAdapted(ImageMatcherConformance):
    plugins = (PLUGIN,)
    matcher = "image-adapted"


class TestNamed(ImageMatcherConformance):
    plugins = (PLUGIN,)
    matcher = "image-named"


@pytest.mark.parametrize(("check", "name", "seen"), BROKEN)
def test_a_fault_is_found(plugins, check, name, seen):
    with pytest.raises(NonconformityError) as found:
        CHECKS[check].run(ImageMatcherSubject(name=f"image-{name}"))
    assert seen in found.value.seen


def test_every_check_has_a_fault():
    # `devices` runs on a GPU alone.
    assert {check for check, _, _ in BROKEN} == {check.name for check in CHECKS} - {"devices"}
