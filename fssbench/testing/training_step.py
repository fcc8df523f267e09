"""One training step of every stage, made by the trainer."""

from __future__ import annotations

import functools
import itertools
import tempfile
from pathlib import Path
from typing import Any

import attrs

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.testing.backbones import BackboneSubject
from fssbench.testing.check import NotCheckedError, expect, locations
from fssbench.testing.matcher_subject import EMBEDDED_DATASET, MatcherSubject
from fssbench.training.loader import load_batches, portions_of
from fssbench.training.plan import Plan, make_plan
from fssbench.training.recipe import Schedule, find_recipe, recipe_names
from fssbench.training.stage import Stage
from fssbench.training.step import set_modes
from fssbench.training.train import make_fabric, make_run
from fssbench.training.trainer import Trainer
from fssbench.training.training import Training

IMAGES = 60
"""Images of `shapes` in each split; with fewer, some base classes have less than two."""

BATCH = 2

_BACKBONE = "backbone"


@attrs.frozen(kw_only=True, eq=False)
class Step:
    """Effects of one training step.

    Attributes:
        stage: trained stage.
        loss: weighted sum of its losses.
        trained: names of the parameters that the stage trains.
        silent: names of trained parameters without a gradient.
        moved: names of trained parameters that changed.
        strayed: names of other parameters that got a gradient or changed.
    """

    stage: Stage
    loss: float
    trained: list[str]
    silent: list[str]
    moved: list[str]
    strayed: list[str]


@functools.lru_cache(maxsize=1)  # several checks examine the same steps
def take_steps(subject: MatcherSubject) -> list[Step]:
    """Return the effects of a training step of each stage, in order.

    A stage that cannot start without them gets random weights for its parts, or the checkpoint of
    an earlier stage.

    Raises:
        NotCheckedError: the matcher has no stages.
        NonconformityError: a stage has no recipe.
        FssbenchError: a stage cannot be prepared, or its step failed.
    """
    stages = registry.load_stages(subject.spec, subject.made())
    if not stages:
        raise NotCheckedError("the matcher has no stages")
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints: list[Path] = []
        for stage in stages:
            plan = _prepared(subject, stage, checkpoints)
            steps.append(_step(plan))
            path = Path(folder) / f"{len(steps)}.safetensors"
            header = {
                "matcher": plan.settings.matcher, "config": {}, "backbone": plan.settings.backbone,
                "stage": stage.name,
            }  # fmt: skip
            write_checkpoint(path, plan.matcher, header)
            checkpoints.append(path)
    return steps


def _prepared(subject: MatcherSubject, stage: Stage, checkpoints: list[Path]) -> Plan:
    training, errors = _training(subject, stage), []
    weights = [training.part_weights]
    if stage.parts and not training.part_weights:
        weights.append(dict.fromkeys(stage.parts, "random"))
    for init, part_weights in itertools.product((None, *reversed(checkpoints)), weights):
        try:
            plan = make_plan(attrs.evolve(training, init=init, part_weights=part_weights))
        except FssbenchError as error:
            errors.append(error)
            continue
        # A schedule may begin with a rate of zero.
        return attrs.evolve(plan, recipe=attrs.evolve(plan.recipe, schedule=Schedule()))
    raise errors[0]


def _training(subject: MatcherSubject, stage: Stage) -> Training:
    def encoder_of(recipe: str) -> str:
        found = find_recipe(subject.spec, stage.name, dataset=EMBEDDED_DATASET, wanted=recipe)
        return found.backbone

    names = recipe_names(subject.spec).get(stage.name, [])
    expect(
        bool(names),
        f"a recipe [{stage.name}.{EMBEDDED_DATASET}], or another of that stage",
        f"{subject.spec.recipes or 'the spec'} has none",
        locations(type(stage), ()),
    )
    fitting = [EMBEDDED_DATASET] if EMBEDDED_DATASET in names else []
    fitting += [name for name in names if encoder_of(name) == subject.encoder]
    own = subject.recipes.get(stage.name) or next(iter(fitting), "")
    # Options of a recipe for another encoder do not apply.
    backbone, options = subject.encoder, subject.options
    if own:
        backbone = subject.backbone_name or encoder_of(own) or subject.encoder
        options = subject.given
    weights = subject.weights or BackboneSubject(name=backbone).backbone.weights.source
    return Training(
        matcher=subject.spec.name,
        stage=stage.name,
        dataset=EMBEDDED_DATASET,
        data_options={"images_per_split": IMAGES},
        recipe=own or names[0],
        backbone=backbone,
        weights=weights,
        part_weights=subject.part_weights.get(stage.name, {}),
        options=options,
        steps=1,
        batch_size=BATCH,
        device="cpu",
        workers=0,
        validation_episodes=0,
    )


def _step(plan: Plan) -> Step:
    def nothing(*_: Any, **__: Any) -> None:
        pass

    fabric = make_fabric(plan)
    fabric.launch()
    run = make_run(plan, Path(), done=0)
    trainer = Trainer(plan, fabric, run=run, validation=None, event=nothing, save=nothing)
    named = {
        **dict(plan.matcher.named_parameters()),
        **dict(trainer.module.extra.named_parameters(prefix="modules")),
        **dict(plan.backbone.named_parameters(prefix=_BACKBONE)),
    }
    wanted = {id(p) for group in trainer.groups for p in group.parameters}
    strangers = len(wanted - set(map(id, named.values())))
    expect(
        not strangers,
        f"stage {plan.stage.name}: all trained parameters in the matcher or in `modules`, which "
        "are saved",
        f"{strangers} trained parameters belong to neither",
        locations(type(plan.stage), ("parameters", "modules")),
    )
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    portions = portions_of(
        plan.samples.epoch(0), first_step=0, batch=BATCH, parts=1, rank=0, world=1
    )[:1]
    batches = load_batches(plan.loader, 0, portions, workers=0, pin=False)
    set_modes(plan.stage, plan.matcher, plan.backbone)
    losses = trainer.take_step(batches).losses
    changed = {name for name, p in named.items() if not p.detach().equal(before[name])}
    graded = {name for name, p in named.items() if p.grad is not None}
    trained = [name for name, p in named.items() if id(p) in wanted]
    return Step(
        stage=plan.stage,
        loss=losses["total"],
        trained=trained,
        # The trainer adds the whole backbone, including layers above the requested ones.
        silent=[n for n in trained if n not in graded and not n.startswith(_BACKBONE)],
        moved=[name for name in trained if name in changed],
        strayed=[n for n in named if n not in trained and n in graded | changed],
    )
