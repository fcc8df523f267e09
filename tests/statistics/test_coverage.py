"""Coverage of the intervals of differences; see tools/coverage_study.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fssbench.metrics.iou import IoU

TOOL = Path(__file__).parents[2] / "tools" / "coverage_study.py"
SCORES = ("miou", "fb_iou", "episode_miou")


@pytest.fixture(scope="module")
def study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_study", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # attrs looks a class's module up
    spec.loader.exec_module(module)
    return module


def test_what_the_study_calls_true_is_what_very_many_episodes_score(study):
    design = study.Design(images=200_000, repeats=3)
    tables = study.simulate(design, (study.A, study.B), np.random.default_rng(0))
    for method, rows in zip((study.A, study.B), tables, strict=True):
        assert IoU().summarise(rows) == pytest.approx(study.truth(method), abs=0.1)
    assert tables[0]["query"].equals(tables[1]["query"])


def test_coverage_in_short(study):
    """Coverage is within the noise of 150 simulations."""
    design = study.DESIGNS["clustered, up to 6 episodes an image"]
    held = study.coverage(design, 150, resamples=500, seed=1)
    assert set(held) == set(SCORES)
    assert all(0.89 <= share <= 0.99 for share in held.values()), held


@pytest.mark.slow
@pytest.mark.parametrize("name", ["independent episodes", "clustered, up to 6 episodes an image"])
def test_the_interval_of_a_difference_holds_the_truth_in_93_to_97_percent(study, name):
    held = study.coverage(study.DESIGNS[name], 1000)
    assert all(0.93 <= share <= 0.97 for share in held.values()), held


@pytest.mark.slow
def test_intervals_that_take_episodes_for_independent_are_too_narrow(study):
    """With a different query id for each episode, the coverage of clustered data is too low."""
    design = study.DESIGNS["clustered, up to 6 episodes an image"]
    generator = np.random.default_rng(0)
    true = study.truth(study.B)["miou"] - study.truth(study.A)["miou"]
    held = 0
    for number in range(300):
        pair = study.simulate(design, (study.A, study.B), generator)
        apart = tuple(table.assign(query=table["index"]) for table in pair)
        value = study.compare([apart], resamples=500, seed=number).scores["miou"]
        held += value.low <= true <= value.high
    assert held / 300 < 0.9
