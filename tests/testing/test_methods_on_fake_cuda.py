"""Bundled methods on a simulated GPU: no wait, no tensor on the CPU, in inference and training."""

from __future__ import annotations

import pytest
import torch
from fake_cuda_for_tests import needs_fake_cuda

from fssbench.testing import training_step
from fssbench.testing.fake_cuda import FakeCuda
from fssbench.testing.matcher_subject import MatcherSubject
from fssbench.testing.matchers import on_fake_cuda
from fssbench.training.loader import load_batches, portions_of
from fssbench.training.step import TrainingStep, set_modes

pytestmark = needs_fake_cuda

OPTIONS = {
    "prototype": [{}],
    "dcama": [
        {},
        {"shots": "voting", "pixels": 20},
        {"shots": "averaging", "output": "1/8"},
        {"shots": "hsnet", "background": False},
        {"shots": "scl"},
    ],
    "hdmnet": [
        {"ensemble": True},
        *({"matching": name} for name in ("cosine-softmax", "cross-attention")),
    ],
    "hsnet": [{}, {"support_mask": False}, {"pyramid": (16, 32)}],
    # Its gradient steps need a driver; the objective is computed for the proportions' start.
    "repri": [{"iterations": 1}, {"head": "none", "iterations": 1}],
    "fsdino": [
        {"volume": "cosine", "support": "foreground"},
        {"volume": "dot", "support": "all"},
        {"correlation": "prototype"},
    ],
    "uinofss": [
        {},
        {"pool": "all", "prior": "probability", "hypercorrelation": "cp4d"},
        {"hypercorrelation": "none"},
    ],
    "uinofss-comp": [{}],
    "uinofss-comp-frozen": [{}],
}


@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((name, options) for name, every in OPTIONS.items() for options in every),
        *(
            pytest.param("hdmnet", {"matching": name}, marks=pytest.mark.slow)
            for name in ("cosine", "cosine-inverse-softmax")
        ),
    ],
    ids=str,
)
def test_inference(method, options):
    subject = MatcherSubject(name=method, options=options)
    for count, shots, precision in ((1, 1, "bf16"), (2, 2, "fp32")):
        logits = on_fake_cuda(subject, count, shots, precision)
        assert (len(logits), logits.device.type, logits.dtype) == (count, "cuda", torch.float32)


@pytest.mark.parametrize(
    "method", ["dcama", "hdmnet", "hsnet", "repri", "fsdino", "uinofss", "uinofss-comp"]
)
def test_training_steps(method, monkeypatch):
    """Every stage computes its losses without a wait.

    The backward pass needs a driver. The stage that distils a teacher reads embeddings from files.
    """

    def fake_step(plan):
        if plan.stage.feeds == "images":
            return
        batches = portions_of(
            plan.samples.epoch(0), first_step=0, batch=2, parts=1, rank=0, world=1
        )[:1]
        (loaded,) = load_batches(plan.loader, 0, batches, workers=0, pin=False)
        step = TrainingStep(plan)
        set_modes(plan.stage, plan.matcher, plan.backbone)
        fake = FakeCuda()
        there = fake.module(step)
        if plan.stage.trains_backbone:
            backbone = there.trained_backbone
        else:  # the trainer moves a frozen one
            backbone = fake.module(plan.backbone)
        there._backbone, there._frozen._backbone = (backbone,), backbone
        loaded = fake.tensors(loaded)
        with fake.computing(), torch.autocast("cuda", dtype=torch.bfloat16):
            losses = there(loaded)
        assert {loss.device.type for loss in losses.values()} == {"cuda"}
        seen.append(plan.stage.name)

    seen = []
    monkeypatch.setattr(training_step, "_step", fake_step)
    training_step.take_steps(MatcherSubject(name=method))
    assert seen
