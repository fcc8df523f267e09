"""Training of DCAMA: the paper's recipe, and one step of the trainer."""

from __future__ import annotations

import pytest

from fssbench import registry
from fssbench.cli import _run
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe


@pytest.mark.parametrize(("dataset", "batch"), [("pascal5i", 48), ("coco20i", 48), ("fss1000", 40)])
def test_recipes_are_those_of_section_4(dataset, batch):
    spec = registry.registry().get(MatcherSpec, "dcama")
    recipe = find_recipe(spec, "meta", dataset=dataset)
    assert (recipe.batch, recipe.shots) == (batch, 1)
    optimiser = recipe.optimiser
    assert (optimiser.kind, optimiser.lr, optimiser.weight_decay) == ("sgd", 1e-3, 1e-4)
    assert (optimiser.momentum, optimiser.nesterov) == (0.9, True)
    assert recipe.schedule.kind == "constant"
    augment = recipe.augment
    assert (augment.flip, augment.blur, augment.scale, augment.rotate) == (0.0, 0.0, None, None)
    assert recipe.size is None  # that of the matcher: 384 on the paper's backbones


@pytest.mark.slow
def test_the_trainer_takes_a_step(capsys):
    assert _run(["train", "dcama", "--dry-run", "--workers", "0", "--device", "cpu"]) == 0
    assert "bce" in capsys.readouterr().out
