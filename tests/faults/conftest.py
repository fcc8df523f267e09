"""Evaluations of a second, and what they give when nothing goes wrong."""

from __future__ import annotations

import attrs
import faults_for_tests
import methods_for_tests
import pytest
from registered_for_tests import registered

from fssbench import Evaluation
from fssbench.evaluation.evaluate import evaluate

plugin = registered(methods_for_tests)


@pytest.fixture
def job(tmp_path):
    """50 episodes, three chunks, masks kept."""
    return Evaluation(
        matcher="mixer", backbone="pixels", data_options={"images_per_split": "60"}, folds=(0,),
        limit=50, workers=0, device="cpu", save_predictions=True, out=tmp_path / "runs",
    )  # fmt: skip


@pytest.fixture(scope="session")
def kept():
    """Results of undisturbed runs, by settings."""
    return {}


@pytest.fixture
def undisturbed(job, kept, tmp_path):
    """The files of the job's run when nothing goes wrong."""
    key = repr(attrs.evolve(job, out=None))
    if key not in kept:
        evaluate(attrs.evolve(job, out=tmp_path / "undisturbed"))
        kept[key] = faults_for_tests.results(tmp_path / "undisturbed")
    return kept[key]
