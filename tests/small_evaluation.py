"""Evaluations that take a second: small shapes, a backbone of mean colours."""

from __future__ import annotations

import methods_for_tests
import pytest
from registered_for_tests import registered

from fssbench import Evaluation

plugin = registered(methods_for_tests)


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
