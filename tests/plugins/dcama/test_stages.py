"""Training of DCAMA: the paper's recipe, and one step of the trainer."""

from __future__ import annotations

import pytest
import torch

from fssbench import ParameterGroup, Training, registry
from fssbench.cli import _run
from fssbench.specs import MatcherSpec
from fssbench.training.optim import make_optimiser
from fssbench.training.plan import recipe_of
from fssbench.training.recipe import find_recipe


@pytest.mark.parametrize(("dataset", "batch"), [("pascal5i", 48), ("coco20i", 48), ("fss1000", 40)])
def test_recipes_are_those_of_section_4(dataset, batch):
    spec = registry.registry().get(MatcherSpec, "dcama")
    recipe = find_recipe(spec, "meta", dataset=dataset)
    assert (recipe.batch, recipe.shots) == (batch, 1)
    optimiser = recipe.optimiser
    assert (optimiser.kind, optimiser.lr) == ("sgd", 1e-3)
    (group,) = make_optimiser(
        optimiser, [ParameterGroup(name="all", parameters=[torch.nn.Parameter(torch.ones(1))])]
    ).param_groups
    assert group["weight_decay"] == pytest.approx(1e-4)
    assert (optimiser.momentum, optimiser.nesterov) == (0.9, True)
    assert recipe.schedule.kind == "constant"
    augment = recipe.augment
    assert (augment.flip, augment.blur, augment.scale, augment.rotate) == (0.0, 0.0, None, None)
    assert recipe.size is None  # that of the matcher: 384 on the paper's backbones
    # By the authors' code: their encoder, their limit of epochs, HSNet's lists and sampler.
    assert (recipe.backbone, recipe.epochs) == ("resnet50_a1h", 500)
    coco = dataset == "coco20i"
    assert recipe.sampler == ("class-uniform" if coco else "class-balanced")
    assert recipe.min_pixels == (1 if dataset == "fss1000" else 2048)
    assert recipe.data_options == ({"overlaps": "painted"} if coco else {})


def test_the_weight_decay_follows_the_learning_rate():
    """The authors' code sets it to a tenth of the rate."""
    spec = registry.registry().get(MatcherSpec, "dcama")
    recipe = recipe_of(Training(matcher="dcama", dataset="pascal5i", lr=5e-4), spec)
    optimiser = make_optimiser(
        recipe.optimiser,
        [ParameterGroup(name="all", parameters=[torch.nn.Parameter(torch.ones(1))])],
    )
    assert optimiser.param_groups[0]["weight_decay"] == pytest.approx(5e-5)


@pytest.mark.slow
def test_the_trainer_takes_a_step(capsys):
    assert _run(["train", "dcama", "--dry-run", "--workers", "0", "--device", "cpu"]) == 0
    assert "bce" in capsys.readouterr().out
