"""What docs/training.md shows works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fssbench import registry, train
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for language in ("python", "toml"):
        for block in re.findall(rf"^```{language}\n(# (\S+)\n.*?)^```$", PAGE, re.S | re.M):
            (tmp_path / block[1]).write_text(block[0])
    yield tmp_path
    sys.modules.pop("my_learner", None)


def test_the_stage_and_its_recipe(folder, job):
    registry.use_plugins(["my_learner.py"])
    result = train(
        matcher="my-learner", data_options=job.data_options, device="cpu", workers=0,
        validation_episodes=0, steps=3, batch_size=2, out=job.out,
    )  # fmt: skip
    assert result.steps == 3


def test_the_recipe_of_ones_own(folder):
    spec = MatcherSpec(name="any", summary="for tests")
    recipe = find_recipe(spec, "meta", dataset="shapes", wanted="mine.toml")
    assert recipe.optimiser.lr_scales == {"matcher": 0.5}
    assert recipe.augment.blur == 0.5
