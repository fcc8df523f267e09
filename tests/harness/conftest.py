"""Evaluations that take a second: small shapes, a backbone of mean colours."""

from __future__ import annotations

import methods_for_tests
import pytest

from fssbench import Evaluation, registry


@pytest.fixture(autouse=True)
def plugin():
    """The test methods are registered, and gone afterwards."""
    yield registry.use_plugins([methods_for_tests.__file__])
    registry.use_plugins([])


@pytest.fixture
def job(tmp_path):
    """80 episodes of 1-shot on fold 0, four chunks."""
    return Evaluation(
        matcher="mixer",
        backbone="pixels",
        data_options={"images_per_split": "120"},
        folds=(0,),
        limit=80,
        workers=0,
        out=tmp_path / "runs",
    )
