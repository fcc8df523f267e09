"""Recipes: found, read, refused."""

from __future__ import annotations

import pytest
import trainable_for_tests

from fssbench import FssbenchError, Training
from fssbench.training.plan import recipe_of
from fssbench.training.recipe import Schedule, find_recipe

SPEC, _ = trainable_for_tests.fssbench_matchers()


def test_a_recipe_is_found_by_the_datasets_name():
    recipe = find_recipe(SPEC, "meta", dataset="shapes")
    assert (recipe.stage, recipe.name, recipe.paper) == ("meta", "shapes", "made up for tests")
    assert (recipe.epochs, recipe.steps, recipe.batch) == (2, None, 8)
    assert recipe.optimiser.nesterov is True
    assert recipe.schedule == Schedule(kind="poly", power=0.9, warmup=3)
    assert recipe.augment.rotate == (-10.0, 10.0)
    assert recipe.losses == {"size": 0.5}


def test_the_command_line_changes_a_recipe_and_its_name():
    job = Training(matcher="trainable", stage="meta", steps=7, batch_size=4, lr=0.5, shots=5)
    recipe = recipe_of(job, SPEC)
    assert (recipe.steps, recipe.epochs, recipe.batch, recipe.shots) == (7, None, 4, 5)
    assert recipe.optimiser.lr == 0.5
    assert recipe.name == "shapes steps=7 batch=4 lr=0.5"


def test_ones_own_file(tmp_path):
    path = tmp_path / "mine.toml"
    table = 'steps = 3\nbatch = 2\noptimiser = { kind = "sgd", lr = 1 }\n'
    path.write_text(f"[meta.other]\n{table}")
    recipe = find_recipe(SPEC, "meta", dataset="shapes", wanted=str(path))
    assert recipe.name == "mine:other"
    assert recipe.optimiser.lr == 1.0
    path.write_text(f"[meta.other]\n{table}[meta.shapes]\n{table}")
    assert find_recipe(SPEC, "meta", dataset="shapes", wanted=str(path)).name == "mine:shapes"
    with pytest.raises(FssbenchError, match=r"mine.toml has no recipe \[meta.coco20i\]; there"):
        find_recipe(SPEC, "meta", dataset="coco20i", wanted=str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[meta.a", "this is no TOML"),
        ("meta = 3", r"write recipes as tables \[STAGE.NAME\]"),
        ("[meta.a]\nbatchsize = 3", r"\[meta.a\]: there is no 'batchsize'; did you mean 'batch'"),
        ("[meta.a]\nbatch = 'x'", "batch = 'x' is of the wrong type"),
        ("[meta.a]\nbatch = 8\nepochs = 1", "missing 1 required keyword-only argument: 'optimiser"),
        ("[meta.a]\noptimiser = 3", "optimiser = 3 is of the wrong type"),
        ("[meta.a]\noptimiser = {kind = 'sdg', lr = 1}", r"\[meta.a.optimiser\]: kind = 'sdg'"),
        ("[meta.a]\noptimiser = {kind = 'sgd', lr = 0}", "'lr' must be > 0: 0"),
        ("[meta.a]\naugment = {flip = 2}", "'flip' must be <= 1: 2"),
        ("[meta.a]\naugment = {scale = [2, 1]}", r"scale must be \[least, most\]"),
        ("[meta.a]\nbatch = 8\noptimiser = {kind = 'sgd', lr = 1}", "give epochs or steps"),
        (
            "[meta.a]\nbatch = 8\nsteps = 1\nepochs = 1\noptimiser = {kind = 'sgd', lr = 1}",
            "give epochs or steps, one of them",
        ),
    ],
)
def test_wrong_recipes_are_one_line(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(FssbenchError, match=message) as caught:
        find_recipe(SPEC, "meta", dataset="shapes", wanted=str(path))
    assert "\n" not in str(caught.value)
