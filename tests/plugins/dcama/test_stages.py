"""Training of DCAMA: the paper's recipe, and one step of the trainer."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch.nn import functional

from fssbench import EpisodeBatch, ParameterGroup, Training, registry
from fssbench.cli import _run
from fssbench.options import from_record, to_record
from fssbench.specs import MatcherSpec
from fssbench.training.optim import make_optimiser
from fssbench.training.plan import recipe_of
from fssbench.training.recipe import find_recipe
from fssbench_dcama.config import DcamaConfig
from fssbench_dcama.stages import stages


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


class Fixed(torch.nn.Module):
    """A matcher whose logits are given."""

    def __init__(self, logits, **options):
        super().__init__()
        self.logits, self.config = logits, DcamaConfig(**options)

    def forward(self, query, support, masks):
        return self.logits


def loss(logits, masks, **options):
    matcher = Fixed(logits, **options)
    (stage,) = stages(matcher)
    batch = EpisodeBatch(
        query={}, query_masks=masks, support={}, support_masks=masks[:, None],
        class_ids=torch.zeros(len(masks)), classes=(0,), query_images=None, support_images=None,
    )  # fmt: skip
    return float(stage.losses(matcher, batch)["bce"])


def test_the_loss_weighs_the_foreground_and_ignores_void_pixels_on_request():
    logits = torch.tensor([[[2.0, -1.0], [0.5, 3.0]]])
    masks = torch.tensor([[[1, 0], [1, 255]]], dtype=torch.uint8)
    found, missed = (functional.softplus(sign * logits[0]) for sign in (-1, 1))
    counted = [found[0, 0], missed[0, 1], found[1, 0]]
    assert loss(logits, masks) == pytest.approx(float(sum(counted) + missed[1, 1]) / 4)
    assert loss(logits, masks, void="ignore") == pytest.approx(float(sum(counted)) / 3)
    weighed = 4 * counted[0] + counted[1] + 4 * counted[2]
    heavy = loss(logits, masks, void="ignore", foreground_weight=4)
    assert heavy == pytest.approx(float(weighed) / 3)
    heavy = loss(logits, masks, foreground_weight=4)
    assert heavy == pytest.approx(float(weighed + missed[1, 1]) / 4)
    assert loss(logits, torch.full_like(masks, 255), void="ignore") == 0
    other = torch.tensor([[[0, 255], [255, 255]]], dtype=torch.uint8)  # weighs as much as the first
    parts = [loss(logits, each, void="ignore") for each in (masks, other)]
    both = loss(torch.cat([logits, logits]), torch.cat([masks, other]), void="ignore")
    assert both == pytest.approx(sum(parts) / 2)


def test_novel_classes_can_be_ignored_where_the_loss_ignores_void_pixels():
    for void, counts in (("background", True), ("ignore", False)):
        (stage,) = stages(Fixed(torch.zeros(1, 2, 2), void=void))
        assert stage.counts_ignored is counts


def test_records_without_the_options_of_the_loss_have_the_authors_loss():
    known = registry.registry().get(MatcherSpec, "dcama")
    for name, value in (("foreground_weight", 1.0), ("void", "background")):
        assert attrs.fields_dict(DcamaConfig)[name].metadata["earlier"] == value
        assert from_record(known, {})[name] == value
        assert name not in to_record(DcamaConfig())
