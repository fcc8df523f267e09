"""Training of HSNet: the authors' recipe, and one step of the trainer."""

from __future__ import annotations

import pytest

from fssbench import registry
from fssbench.cli import _run
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe


@pytest.mark.parametrize(("dataset", "batch"), [("pascal5i", 20), ("coco20i", 40), ("fss1000", 20)])
def test_recipes_are_the_authors(dataset, batch):
    spec = registry.registry().get(MatcherSpec, "hsnet")
    recipe = find_recipe(spec, "meta", dataset=dataset)
    assert (recipe.batch, recipe.shots, recipe.epochs) == (batch, 1, 2000)
    optimiser = recipe.optimiser
    assert (optimiser.kind, optimiser.lr, optimiser.weight_decay) == ("adam", 1e-3, 0)
    assert recipe.schedule.kind == "constant"
    augment = recipe.augment
    assert (augment.flip, augment.blur, augment.scale, augment.rotate) == (0.0, 0.0, None, None)
    assert recipe.size is None  # that of the matcher: 400


@pytest.mark.slow
def test_the_trainer_takes_a_step(capsys):
    assert _run(["train", "hsnet", "--dry-run", "--workers", "0", "--device", "cpu"]) == 0
    assert "ce" in capsys.readouterr().out
