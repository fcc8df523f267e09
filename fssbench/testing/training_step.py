"""One training step of every stage, made by the trainer."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.testing.check import NonconformityError, NotCheckedError, locations
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
    job = _job(subject, stage)
    first: FssbenchError | None = None
    for attempt in _attempts(job, stage, checkpoints):
        try:
            plan = make_plan(attempt)
        except FssbenchError as error:
            first = first or error
            continue
        # A schedule may begin with a rate of zero.
        return attrs.evolve(plan, recipe=attrs.evolve(plan.recipe, schedule=Schedule()))
    assert first is not None
    raise first


def _attempts(job: Training, stage: Stage, checkpoints: list[Path]) -> Iterator[Training]:
    parts = [dict(job.part_weights)]
    if stage.parts and not job.part_weights:
        parts.append(dict.fromkeys(stage.parts, "random"))
    for init in (None, *reversed(checkpoints)):
        for weights in parts:
            yield attrs.evolve(job, init=init, part_weights=weights)


def _job(subject: MatcherSubject, stage: Stage) -> Training:
    names = recipe_names(subject.spec).get(stage.name, [])
    if not names:
        raise NonconformityError(
            f"a recipe [{stage.name}.{EMBEDDED_DATASET}], or another of that stage",
            f"{subject.spec.recipes or 'the spec'} has none",
            locations(type(stage), ()),
        )
    wanted = subject.recipes.get(stage.name, "")
    fitting = [EMBEDDED_DATASET] if EMBEDDED_DATASET in names else []
    fitting += [name for name in names if _recipe(subject, stage, name) == subject.encoder]
    own = wanted or next(iter(fitting), "")
    # Options of a recipe for another encoder do not apply.
    backbone, options = subject.encoder, subject.options
    if own:
        backbone = subject.backbone_name or _recipe(subject, stage, own) or subject.encoder
        options = subject.given
    return Training(
        matcher=subject.spec.name,
        stage=stage.name,
        dataset=EMBEDDED_DATASET,
        data_options={"images_per_split": IMAGES},
        recipe=own or names[0],
        backbone=backbone,
        weights=subject.weights_of(backbone),
        part_weights=subject.part_weights.get(stage.name, {}),
        options=options,
        steps=1,
        batch_size=BATCH,
        device="cpu",
        workers=0,
        validation_episodes=0,
    )


def _recipe(subject: MatcherSubject, stage: Stage, name: str) -> str:
    """Return the backbone of a recipe."""
    return find_recipe(subject.spec, stage.name, dataset=EMBEDDED_DATASET, wanted=name).backbone


def _step(plan: Plan) -> Step:
    fabric = make_fabric(plan)
    fabric.launch()
    run = make_run(plan, Path(), done=0)
    trainer = Trainer(plan, fabric, run=run, validation=None, event=_nothing, save=_nothing)
    named = _named(plan, trainer)
    wanted = {id(p) for group in trainer.groups for p in group.parameters}
    strangers = len(wanted - {id(p) for p in named.values()})
    if strangers:
        raise NonconformityError(
            f"stage {plan.stage.name}: all trained parameters in the matcher or in `modules`, "
            "which are saved",
            f"{strangers} trained parameters belong to neither",
            locations(type(plan.stage), ("parameters", "modules")),
        )
    before = {name: parameter.detach().clone() for name, parameter in named.items()}
    portions = portions_of(
        plan.samples.epoch(0), first_step=0, batch=BATCH, parts=1, rank=0, world=1
    )[:1]
    batches = load_batches(plan.loader, 0, portions, workers=0, pin=False)
    set_modes(plan.stage, plan.matcher, plan.backbone)
    losses, _, _ = trainer.take_step(batches)
    changed = {name for name, p in named.items() if not p.detach().equal(before[name])}
    trained = [name for name, p in named.items() if id(p) in wanted]
    return Step(
        stage=plan.stage,
        loss=losses["total"],
        trained=trained,
        # The trainer adds the whole backbone, including layers above the requested ones.
        silent=[n for n in trained if named[n].grad is None and not n.startswith(_BACKBONE)],
        moved=[name for name in trained if name in changed],
        strayed=[
            name
            for name, p in named.items()
            if id(p) not in wanted and (p.grad is not None or name in changed)
        ],
    )


def _named(plan: Plan, trainer: Trainer) -> Mapping[str, nn.Parameter]:
    """Return all parameters of matcher, modules and backbone, by name."""
    extra = dict(trainer.module.extra.named_parameters(prefix="modules"))
    backbone = dict(plan.backbone.named_parameters(prefix=_BACKBONE))
    return {**dict(plan.matcher.named_parameters()), **extra, **backbone}


def _nothing(*_: Any, **__: Any) -> None:
    pass
