"""Training loop with saves and validations."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import numpy
import torch
from lightning_fabric import Fabric
from torch import Tensor

from fssbench.episodes.draw import Draw
from fssbench.errors import FssbenchError
from fssbench.runtime import termination
from fssbench.runtime.device import loader_processes
from fssbench.training.loader import LoadedBatch, load_batches, portions_of
from fssbench.training.loss_monitor import LossMonitor, describe, memory_advice
from fssbench.training.optim import factor, make_optimiser, parameters_behind, set_rates
from fssbench.training.plan import Plan
from fssbench.training.samples import Sample
from fssbench.training.stage import ParameterGroup
from fssbench.training.step import TrainingStep, freeze_the_rest, set_modes
from fssbench.training.synced_norm import sync_batch_norm
from fssbench.training.training import TrainingRun
from fssbench.training.validation import Validation, gather, measure_held_out

Event = Callable[..., None]

_SAVED = ("step", "validated", "score", "best")


@attrs.frozen(kw_only=True)
class StepResult:
    """Measures of an optimiser step; see the hook ``fssbench_step_finished``.

    Attributes:
        losses: losses by name, and their weighted sum as ``total``.
        lr: learning rate of the first parameter group.
        gradient_norm: norm of all gradients together, before clipping.
        waited: seconds in which this process waited for loaded samples.
    """

    losses: dict[str, float]
    lr: float
    gradient_norm: float
    waited: float


class Trainer:
    """The training loop of one process.

    A step depends only on the plan, the step number and the number of processes: samples are drawn
    and generators seeded by epoch and step, so the only state is that of the weights, the
    optimiser and `LossMonitor.level`.

    Args:
        plan: plan of the training.
        fabric: launched Fabric with devices, processes and precision.
        run: description of the training for hooks.
        validation: validation after each epoch, or None.
        event: function that calls a hook by name, in the first process only.
        save: function that writes state and checkpoints, in the first process only.
    """

    def __init__(
        self,
        plan: Plan,
        fabric: Fabric,
        *,
        run: TrainingRun,
        validation: Validation | None,
        event: Event,
        save: Callable[[Trainer, str], None],
    ) -> None:
        self.plan = plan
        self.fabric = fabric
        self.run = run
        self.validation = validation
        self.step = 0
        self.validated = 0
        self.score: float | None = None
        self.best: float | None = None
        self.monitor = LossMonitor()
        self._terminated = False
        self._event = event
        self._save = save
        self.groups = _groups(plan)
        plan.backbone.to(fabric.device)
        self.module = TrainingStep(plan)
        freeze_the_rest(self.module, (p for group in self.groups for p in group.parameters))
        self.optimiser = make_optimiser(plan.recipe.optimiser, self.groups)
        if fabric.world_size > 1:
            sync_batch_norm(self.module)
        self._forward, self._stepper = fabric.setup(self.module, self.optimiser)

    def state(self) -> dict[str, Any]:
        """Return the state that `resume` needs."""
        return {
            **{name: getattr(self, name) for name in _SAVED},
            "level": self.monitor.level,
            "module": self.module.changing_state(),
            "optimiser": self.optimiser.state_dict(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Restore a state."""
        for name in _SAVED:
            setattr(self, name, state[name])
        self.monitor = LossMonitor(state["level"])
        self.module.load_state_dict({**self.module.state_dict(), **state["module"]})
        self.optimiser.load_state_dict(state["optimiser"])

    def train(self) -> None:
        """Take all remaining steps.

        Raises:
            FssbenchError: a loss is not finite or exploded, memory ran out, or data cannot be read.
            Terminated: SIGTERM was received, and the state was saved.
        """
        settings = self.plan.settings
        while (due := self._validation_is_due()) or self.step < self.run.steps:
            if due:
                self._validate()
                self._save(self, "epoch")
                continue
            with termination.deferred():
                for _ in self._epoch():
                    every = settings.keep_every
                    permanent = every is not None and self.step % every == 0
                    ends = self._epoch_ends()
                    if ends and self.plan.held_out and not self._terminated:
                        self._measure_held_out()
                    due = self.step % settings.save_every == 0 or ends or self._terminated
                    if due or permanent:
                        self._save(self, "kept" if permanent else "")
                    if self._terminated:
                        raise termination.Terminated

    def _epoch_ends(self) -> bool:
        return self.step % self.run.epoch_steps == 0 or self.step == self.run.steps

    def _validation_is_due(self) -> bool:
        due = self.step > self.validated and self._epoch_ends()
        return due and self.validation is not None

    def _epoch(self) -> Iterator[int]:
        """Take the remaining steps of an epoch, and yield after each one."""
        run, plan, settings = self.run, self.plan, self.plan.settings
        epoch, done = divmod(self.step, run.epoch_steps)
        end = min(run.steps, (epoch + 1) * run.epoch_steps)
        portions = portions_of(
            plan.samples.epoch(epoch),
            first_step=done,
            batch=plan.recipe.batch,
            parts=settings.accumulate,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )[: (end - self.step) * settings.accumulate]
        batches = load_batches(
            plan.loader,
            epoch,
            portions,
            workers=loader_processes(settings.workers, settings.devices),
            pin=self.fabric.device.type == "cuda",
        )
        set_modes(plan.stage, plan.matcher, plan.backbone)
        while self.step < end:
            with memory_advice(len(portions[0].samples), plan.size, settings.accumulate):
                result = self.take_step(batches)
            self._event("fssbench_step_finished", step=self.step, **attrs.asdict(result))
            yield self.step

    def take_step(self, batches: Iterator[LoadedBatch]) -> StepResult:
        """Take one optimiser step."""
        run, plan = self.run, self.plan
        parts = plan.settings.accumulate
        scale = factor(
            plan.recipe.schedule, self.step, steps=run.steps, epoch_steps=run.epoch_steps
        )
        lr = set_rates(self.optimiser, scale)
        self._stepper.zero_grad()
        shown: list[LoadedBatch] = []
        found: list[dict[str, Tensor]] = []
        waited = 0.0
        for part in range(parts):
            started = time.perf_counter()
            shown.append(next(batches))
            waited += time.perf_counter() - started
            _seed(run.seed, self.step, part, self.fabric.global_rank)
            with self.fabric.no_backward_sync(self._forward, enabled=part < parts - 1):
                losses = self._forward(shown[-1])
                found.append({name: loss.detach().float() for name, loss in losses.items()})
                self.fabric.backward(losses["total"] / parts)
        # Without a limit this computes the norm only: gradients are multiplied by 1.
        norm = self.fabric.clip_gradients(
            self._forward, self._stepper, max_norm=plan.recipe.clip or float("inf"),
            error_if_nonfinite=False,
        )  # fmt: skip
        assert norm is not None
        values = torch.stack([torch.stack(list(losses.values())) for losses in found])
        # All processes must stop after the same step, so they share the signal with the losses.
        signal = values.new_tensor([float(termination.received())])
        means = self.fabric.all_reduce(torch.cat([values.mean(0), signal]), reduce_op="mean")
        # One copy, for a GPU is waited for at each.
        *numbers, signalled, norm = torch.cat([torch.as_tensor(means), norm.view(1)]).tolist()
        reported = dict(zip(found[0], numbers, strict=True))
        self._check(reported, norm, shown, values)
        self._stepper.step()
        self.step += 1
        self._terminated = signalled > 0
        return StepResult(losses=reported, lr=lr, gradient_norm=norm, waited=waited)

    def _check(
        self, losses: Mapping[str, float], norm: float, shown: list[LoadedBatch], values: Tensor
    ) -> None:
        problem = self.monitor.check(losses)
        if not problem and not numpy.isfinite(norm):
            problem = "the gradients are NaN or infinite"
        if not problem:
            return
        finite = torch.isfinite(values).all(1).tolist()
        samples = [s for b, fine in zip(shown, finite, strict=True) if not fine for s in b.samples]
        shares: list[list[Sample]] = gather(samples, self.fabric.world_size)
        samples = [sample for share in shares for sample in share]
        if not samples:
            samples = [sample for batch in shown for sample in batch.samples]
        if self.fabric.global_rank:  # all processes find the same error; the first one raises it
            raise SystemExit(2)
        epoch = self.step // self.run.epoch_steps
        raise FssbenchError(
            f"step {self.step + 1} (epoch {epoch + 1}): {problem}; batch: "
            f"{describe(samples)}; lower --lr, or clip gradients in the recipe"
        )

    def _measure_held_out(self) -> None:
        """Measure the held-out images in eval mode, and restore the mode."""
        plan = self.plan
        training = plan.matcher.training
        plan.matcher.eval()
        found = measure_held_out(plan, self.module, self.fabric)
        plan.matcher.train(training)
        self._event("fssbench_held_out_measured", step=self.step, measures=found)

    def _validate(self) -> None:
        assert self.validation is not None
        scores = self.validation.scores()
        self.validated, self.score = self.step, scores["miou"]
        best = self.best is None or self.score > self.best
        if best:
            self.best = self.score
            self._save(self, "best")
        self._event("fssbench_validation_finished", step=self.step, scores=scores, best=best)


def _groups(plan: Plan) -> list[ParameterGroup]:
    groups = list(plan.stage.parameters(plan.matcher, plan.recipe))
    if plan.stage.trains_backbone:
        # Data parallelism would wait for gradients of blocks after the deepest layer.
        layers = tuple(plan.stage.layers(plan.matcher))
        reached = parameters_behind(plan.backbone, layers, size=plan.size)
        groups.append(ParameterGroup(name="backbone", parameters=reached))
    return groups


def _seed(*key: int) -> None:
    """Seed all global generators for one step."""
    number = Draw("step", *key).below(1 << 63)
    torch.manual_seed(number)
    numpy.random.seed(number % (1 << 32))
    random.seed(number)
