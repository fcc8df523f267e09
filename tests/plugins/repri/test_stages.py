"""The stage `base`: the authors' recipes, its loss, and its refusals."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import fssbench
from fssbench import FssbenchError, LabelledBatch, Training, registry, train
from fssbench.cli import _run
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe
from fssbench_repri.stages import stages


@pytest.mark.parametrize(
    ("dataset", "epochs", "classes"), [("pascal5i", 100, 15), ("coco20i", 20, 60)]
)
def test_recipes_are_the_authors(dataset, epochs, classes):
    recipe = find_recipe(registry.registry().get(MatcherSpec, "repri"), "base", dataset=dataset)
    assert (recipe.backbone, recipe.batch, recipe.epochs) == ("resnet50-psp", 12, epochs)
    assert recipe.options == {"base_classes": classes, "size": 417}
    optimiser, schedule = recipe.optimiser, recipe.schedule
    assert (optimiser.kind, optimiser.lr, optimiser.momentum) == ("sgd", 2.5e-3, 0.9)
    assert (optimiser.nesterov, optimiser.weight_decay) == (True, 1e-4)
    assert (schedule.kind, schedule.warmup, schedule.per) == ("cosine", 0, "step")
    assert schedule.final * optimiser.lr == pytest.approx(1e-6)
    assert recipe.data_options == ({"overlaps": "painted"} if dataset == "coco20i" else {})
    assert (recipe.augment.flip, recipe.augment.scale, recipe.train_filter) == (0.5, None, "keep")


def batch(labels):
    images = torch.rand(len(labels), 3, *labels.shape[1:])
    matcher = fssbench.matcher("repri", "tiny-resnet", base_classes=3, dropout=0.0)
    (layer,) = matcher.request().layers
    maps = torch.rand(len(labels), matcher.backbone.layer(layer).channels, 5, 5)
    given = LabelledBatch(images=images, labels=labels, features={layer: maps}, classes=(3, 4, 9))
    return matcher, given


def test_the_loss_smooths_labels_as_the_authors_do():
    labels = torch.randint(0, 4, (2, 17, 17))
    labels[:, :, :6] = 255
    matcher, given = batch(labels)
    (stage,) = stages(matcher)
    matcher.eval()
    logits = functional.interpolate(
        matcher.head(matcher.joined(given.features)), (17, 17), mode="bilinear", align_corners=True
    )
    # 0.9 for the labelled class, 0.1 / 3 for each of the other three.
    target = functional.one_hot(labels.clamp(max=3), 4).permute(0, 3, 1, 2) * (0.9 - 0.1 / 3)
    surprise = -((target + 0.1 / 3) * logits.log_softmax(1)).sum(1)
    losses = stage.losses(matcher, given)
    assert list(losses) == ["ce"]
    torch.testing.assert_close(losses["ce"], surprise[labels != 255].mean())
    labels[:] = 255
    assert stage.losses(matcher, given)["ce"] == 0


def test_one_training_step_lowers_the_loss():
    matcher, given = batch(torch.randint(0, 4, (2, 17, 17)))
    (stage,) = stages(matcher)
    optimiser = torch.optim.SGD(matcher.parameters(), lr=0.01)
    before = stage.losses(matcher, given)["ce"]
    before.backward()
    assert all(parameter.grad is not None for parameter in matcher.parameters())
    optimiser.step()
    assert stage.losses(matcher, given)["ce"] < before


def test_without_head_training_is_refused(tmp_path):
    with pytest.raises(FssbenchError, match="head=none leaves no head to train"):
        train(Training(
            matcher="repri", options={"head": "none"}, device="cpu", workers=0, steps=1,
            data_options={"images_per_split": "60"}, out=tmp_path,
        ))  # fmt: skip


def test_another_number_of_classes_is_refused(tmp_path):
    with pytest.raises(FssbenchError, match="15 base classes; give -o base_classes=15"):
        train(Training(
            matcher="repri", options={"base_classes": "7"}, device="cpu", workers=0, steps=1,
            data_options={"images_per_split": "60"}, out=tmp_path, batch_size=2,
        ))  # fmt: skip


@pytest.mark.slow
def test_the_trainer_takes_a_step(capsys):
    assert _run(["train", "repri", "--dry-run", "--workers", "0", "--device", "cpu"]) == 0
    assert "ce" in capsys.readouterr().out
