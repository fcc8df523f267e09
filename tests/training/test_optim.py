"""Schedules against their formulas, optimisers against torch's."""

from __future__ import annotations

import math

import pytest
import torch

from fssbench import FssbenchError, ParameterGroup
from fssbench.training.optim import factor, make_optimiser, set_rates
from fssbench.training.recipe import Optimiser, Schedule


@pytest.mark.parametrize(
    ("schedule", "formula"),
    [
        (Schedule(), lambda t: 1.0),
        (Schedule(kind="poly", power=0.9), lambda t: (1 - t / 40) ** 0.9),
        (Schedule(kind="poly", power=2, per="epoch"), lambda t: (1 - t // 10 * 10 / 40) ** 2),
        (Schedule(kind="cosine"), lambda t: 0.5 + 0.5 * math.cos(math.pi * t / 40)),
        (
            Schedule(kind="cosine", final=0.1, warmup=4, warmup_start=0.2),
            lambda t: 0.2 + 0.8 * t / 4 if t < 4
            else 0.1 + 0.45 * (1 + math.cos(math.pi * (t - 4) / 36)),
        ),
        (Schedule(warmup=10, warmup_start=0), lambda t: min(1.0, t / 10)),
        (
            Schedule(kind="poly", power=1, warmup=15, warmup_start=0, per="epoch"),
            lambda t: t / 15 if t < 15 else 1 - (max(15, t // 10 * 10) - 15) / 25,
        ),
    ],
)  # fmt: skip
def test_schedules(schedule, formula):
    found = [factor(schedule, step, steps=40, epoch_steps=10) for step in range(40)]
    assert found == pytest.approx([formula(t) for t in range(40)])


def test_a_schedule_that_counts_the_step_that_is_taken():
    """PFENet's, BAM's and HDMNet's: (1 - (t + 1) / T)^0.9 for the step after t steps."""
    ahead = Schedule(kind="poly", power=0.9, ahead=1)
    found = [factor(ahead, step, steps=100, epoch_steps=10) for step in range(100)]
    assert found == pytest.approx([(1 - (step + 1) / 100) ** 0.9 for step in range(100)])
    assert found[-1] == 0


def groups():
    return [
        ParameterGroup(name="a", parameters=[torch.nn.Parameter(torch.ones(2))]),
        ParameterGroup(
            name="b", parameters=[torch.nn.Parameter(torch.ones(3))], lr_scale=10, weight_decay=0
        ),
    ]


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (Optimiser(kind="sgd", lr=0.1, momentum=0.9, nesterov=True), torch.optim.SGD),
        (Optimiser(kind="adam", lr=0.1, betas=(0.8, 0.9)), torch.optim.Adam),
        (Optimiser(kind="adamw", lr=0.1), torch.optim.AdamW),
    ],
)
def test_optimisers(recipe, kind):
    optimiser = make_optimiser(recipe, groups())
    assert type(optimiser) is kind
    assert [g["lr"] for g in optimiser.param_groups] == [0.1, 1.0]
    for name in ("momentum", "nesterov", "betas"):
        if name in optimiser.param_groups[0]:
            assert optimiser.param_groups[0][name] == getattr(recipe, name)


def test_rates_and_decays_of_groups():
    recipe = Optimiser(kind="sgd", lr=0.1, weight_decay=0.01, lr_scales={"a": 3.0})
    optimiser = make_optimiser(recipe, groups())
    assert [g["weight_decay"] for g in optimiser.param_groups] == [0.01, 0]
    assert set_rates(optimiser, 0.5) == pytest.approx(0.15)
    assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([0.15, 0.5])


def test_wrong_groups():
    recipe = Optimiser(kind="sgd", lr=0.1)
    with pytest.raises(FssbenchError, match="trains no parameters"):
        make_optimiser(recipe, [ParameterGroup(name="a", parameters=[])])
    (first, _) = groups()
    with pytest.raises(FssbenchError, match="names a parameter twice"):
        make_optimiser(recipe, [first, first])
