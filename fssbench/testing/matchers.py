"""Checks of the matcher interface; see `fssbench.Matcher`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from fssbench import build
from fssbench.data.dataset import IGNORE
from fssbench.errors import FssbenchError, one_line
from fssbench.inference.computing import computing
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.matchers.matcher import FeatureRequest, Matcher
from fssbench.runtime.device import Precision
from fssbench.runtime.random_state import drawn_twice
from fssbench.testing import fake_cuda
from fssbench.testing.check import (
    Checks,
    NotCheckedError,
    expect,
    expect_close,
    expect_tensor,
    expect_unchanged_generators,
    largest,
    locations,
)
from fssbench.testing.fake_cuda import CUDA, FakeCuda, WaitError
from fssbench.testing.matcher_subject import Case, MatcherSubject, embed
from fssbench.testing.synthetic import picture
from fssbench.testing.training_step import take_steps

CHECKS = Checks("matcher")

# --- forward pass ---------------------------------------------------------------------------------


@CHECKS.add("request")
def request(subject: MatcherSubject) -> str:
    """`request` gives layers of the backbone, a size that it accepts, and a way to resize.

    With the options under test, and with the default options where the matcher supports them on
    this backbone.
    """
    asked, note = subject.made().request(), ""
    _check_request(subject, asked)
    if subject.options:
        try:
            default = build.matcher(subject.name, subject.backbone)
        except FssbenchError as error:
            note = f"; default options: {one_line(error)}"
        else:
            _check_request(subject, default.request())
    return f"{', '.join(asked.layers)} of {asked.size} px, {asked.resize}{note}"


def _check_request(subject: MatcherSubject, asked: FeatureRequest) -> None:
    expect(bool(asked.layers), "at least one layer", "no layers")
    try:
        asked.check(subject.backbone.info)
    except FssbenchError as error:
        expect(False, "layers and a size that the backbone has", str(error))
    known = ("squash", "letterbox")
    expect(asked.resize in known, f"resize: one of {', '.join(known)}", f"{asked.resize!r}")


@CHECKS.add("embed_support", "segment")
def shots(subject: MatcherSubject) -> str:
    """One and five shots give finite logits (B, h, w)."""
    shapes = []
    for number in (1, 5):
        logits = subject.answer(subject.cases(2, number))
        expect_tensor(logits, min(logits.shape[1:]) > 0, "logits of at least 1 x 1")
        shapes.append(f"{number}-shot {tuple(logits.shape)}")
    return ", ".join(shapes)


@CHECKS.add("embed_support", "segment")
def batch(subject: MatcherSubject) -> str:
    """An episode's logits are the same alone and in a batch of three."""
    worst = 0.0
    for number in (1, 5):
        cases = subject.cases(3, number)
        together = subject.answer(cases)
        alone = torch.cat([subject.answer([case]) for case in cases])
        expected = f"the same {number}-shot logits in a batch of 1 and of 3"
        worst = max(worst, expect_close(together, alone, expected))
    return f"largest difference {worst:.1g} of the largest logit"


@CHECKS.add("embed_support", "segment", "request")
def non_square(subject: MatcherSubject) -> str:
    """Supports and queries of any aspect ratio are segmented."""
    case = Case(picture(30, 72, 128), (picture(31, 128, 64), picture(32, 60, 100)))
    geometry = subject.nonzero_pipeline.geometry
    mask = geometry.restore(subject.answer([case])[0], 72, 128)
    expect_tensor(mask, mask.shape == (72, 128), "logits that fit the image of 72 x 128")
    return f"query 72 x 128, supports 128 x 64 and 60 x 100, {geometry.resize}"


@CHECKS.add("embed_support")
def empty_masks(subject: MatcherSubject) -> str:
    """Supports with an empty mask give finite logits, alone and among others."""
    return _segment_with_mask_of(subject, 0)


@CHECKS.add("embed_support")
def full_masks(subject: MatcherSubject) -> str:
    """Supports with a full mask give finite logits, alone and among others."""
    return _segment_with_mask_of(subject, 1)


def _segment_with_mask_of(subject: MatcherSubject, value: int) -> str:
    query, first, *others = subject.pictures[:6]
    filled = first.filled(value)
    subject.answer([Case(query, (filled,))])
    subject.answer([Case(query, (filled, *others))])
    return "finite, 1-shot and one of 5"


@CHECKS.add("embed_support")
def ignored_pixels(subject: MatcherSubject) -> str:
    """Pixels of 255 in a support's mask are not foreground, and all of them may be 255."""
    query, shown = subject.pictures[:2]
    ignored, background, foreground = (
        subject.answer([Case(query, (shown.with_other(value),))]) for value in (IGNORE, 0, 1)
    )
    to_background, to_foreground = largest(ignored - background), largest(ignored - foreground)
    slack = 1e-5 * max(largest(background), 1e-6)
    expect(
        to_background <= to_foreground + slack,
        "logits with an object of 255 near those with it as background: 255 is no foreground",
        f"they are {to_foreground:.3g} from those with it marked 1, {to_background:.3g} from "
        "those with it marked 0",
    )
    subject.answer([Case(query, (shown.filled(IGNORE),))])
    return f"{to_background:.2g} from background, {to_foreground:.2g} from foreground"


@CHECKS.add("embed_support", "segment")
def support_matters(subject: MatcherSubject) -> str:
    """Shuffling the pixels of the support mask changes the logits."""
    query, shown = subject.pictures[:2]
    right, wrong = (subject.answer([Case(query, (s,))]) for s in (shown, shown.permuted()))
    changed = largest(right - wrong) / max(largest(right), 1e-6)
    expected = "other logits if the support's mask is shuffled: the mask selects the object"
    expect(changed > 1e-6, expected, "the same logits")
    return f"logits change by {changed:.2g} of the largest"


@CHECKS.add("maps")
def maps(subject: MatcherSubject) -> str:
    """`maps` returns float maps (B, h, w) by caption, or none."""
    pipeline = subject.nonzero_pipeline
    support, queries = subject.embedded(subject.cases(2, 1))
    found = pipeline.maps(list(map(pipeline.prepare_query, queries)), support)
    for caption, each in found.items():
        expected = f"map {caption!r} of shape (2, h, w) for two queries"
        expect_tensor(each, each.ndim == 3 and len(each) == 2, expected)
    return ", ".join(found) or "none"


@CHECKS.add("prepare_support", "prepare_query")
def prepared(subject: MatcherSubject) -> str:
    """Images prepared in one batch give the logits of images prepared one by one."""
    worst = 0.0
    for number in (1, 5):
        cases = subject.cases(2, number)
        alone, together = subject.answer(cases), _in_one_batch(subject, cases)
        expected = f"the same {number}-shot logits from images prepared in one batch and one by one"
        worst = max(worst, expect_close(together, alone, expected))
    return f"largest difference {worst:.1g} of the largest logit"


# --- randomness -----------------------------------------------------------------------------------


@CHECKS.add("__init__", "embed_support", "segment")
def determinism(subject: MatcherSubject) -> str:
    """The same seed gives the same weights and the same episode the same logits, bit for bit."""
    first, second = drawn_twice(lambda: subject.made(seed=7).state_dict())
    for name, tensor in first.items():
        expected = "the same initial weights from the same torch seed"
        differs = f"{name} differs: it was drawn from another generator"
        expect(torch.equal(tensor, second[name]), expected, differs)
    cases = subject.cases(2, 5)
    answers = drawn_twice(lambda: subject.answer(cases))
    expect_close(*answers, "the same logits from a second call, in eval mode", tolerance=0)
    return "weights and logits are the same bit for bit"


@CHECKS.add("embed_support", "segment")
def generators(subject: MatcherSubject) -> str:
    """Creating a matcher and segmenting do not use the global random generators.

    Exception: initial weights come from torch's generator, which training seeds.
    """
    with expect_unchanged_generators(
        " when a matcher is created; initial weights come from torch's generator",
        names=("random", "numpy.random"),
        look=locations(subject.thing, ("__init__",)),
    ):
        subject.made()
    cases = subject.cases(1, 1)
    subject.inputs(cases)  # encodes the images
    with expect_unchanged_generators("; a method that draws creates its own torch.Generator"):
        subject.nonzero_pipeline.matcher.request()
        subject.answer(cases)
    return "random, numpy.random and torch are unchanged"


# --- training -------------------------------------------------------------------------------------


@CHECKS.add("stages")
def stages(subject: MatcherSubject) -> str:
    """Every stage has a recipe, and a step has finite losses and changes trained parameters."""
    notes = []
    for step in take_steps(subject):
        name, stage = step.stage.name, type(step.stage)
        expect(
            bool(step.moved),
            f"stage {name}: a step changes trained parameters",
            f"none of {len(step.trained)} trained tensors changed; the loss is {step.loss:.3g}",
            locations(stage, ("losses",)),
        )
        changed = f"{len(step.moved)} of {len(step.trained)} tensors changed"
        notes.append(f"{name}: loss {step.loss:.3g}, {changed}")
    return "; ".join(notes)


@CHECKS.add("stages")
def gradients(subject: MatcherSubject) -> str:
    """All parameters of a stage get a gradient, and no others get one or change."""
    notes = []
    for step in take_steps(subject):
        name, stage = step.stage.name, type(step.stage)
        expect(
            not step.silent,
            f"stage {name}: a gradient, possibly zero, for each of `parameters`",
            f"none for {_some(step.silent)}",
            locations(stage, ("parameters", "losses")),
        )
        expect(
            not step.strayed,
            f"stage {name}: tensors outside `parameters` are unchanged",
            f"{_some(step.strayed)} got a gradient or changed",
            locations(stage, ("losses", "parameters")),
        )
        notes.append(f"{name}: gradients for {len(step.trained)}")
    return "; ".join(notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return f"{', '.join(names[:3])}{more}"


# --- weights and devices --------------------------------------------------------------------------


@CHECKS.add("__init__")
def state_dict(subject: MatcherSubject) -> str:
    """A matcher of another seed that loads the checkpoint gives the same logits."""
    cases = subject.cases(2, 1)
    expected = subject.answer(cases)
    matcher = subject.nonzero_pipeline.matcher
    header = {"matcher": subject.name, "config": {}, "backbone": subject.encoder}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.safetensors"
        write_checkpoint(path, matcher, header)
        other = subject.made(seed=1)
        read_checkpoint(path).load_into(other)
    expect_close(
        subject.answer(cases, subject.pipeline(other)),
        expected,
        "the same logits from a matcher of another seed that loaded the checkpoint; state that is "
        "neither parameter nor buffer is not saved",
        tolerance=0,
    )
    return f"{len(matcher.state_dict())} tensors through a file"


def _in_one_batch(subject: MatcherSubject, cases: Sequence[Case]) -> Tensor:
    """Return the logits of a batch of episodes, whose images are prepared together."""
    supports, masks, queries = subject.inputs(cases)
    batches = default_collate(queries), default_collate(list(map(default_collate, supports)))
    pipeline = subject.nonzero_pipeline
    with computing(pipeline.device, "fp32", gradients="gradients" in pipeline.matcher.uses or None):
        logits: Tensor = pipeline.matcher(*batches, masks)
    return logits.detach()


@CHECKS.add("__init__", "embed_support", "segment")
def devices(subject: MatcherSubject) -> str:
    """The matcher runs on the device that it was moved to."""
    note = _on_fake_cuda(subject, 2, 2)
    if not torch.cuda.is_available():
        return f"{note}, no GPU"
    cases = subject.cases(1, 1)
    pipeline = subject.pipeline(copy.deepcopy(subject.nonzero_pipeline.matcher), device="cuda")
    logits, expected = subject.answer(cases, pipeline).cpu(), subject.answer(cases)
    apart = expect_close(logits, expected, "logits on the GPU within 1 % of the CPU's", 0.01)
    return f"{note}, cuda within {apart:.1g}"


def _on_fake_cuda(subject: MatcherSubject, count: int, shots: int) -> str:
    """Run all steps of an evaluation with tensors that claim to be on a GPU."""
    if "gradients" in subject.spec.uses:
        return "gradient steps need a real GPU"
    if not fake_cuda.works():
        return f"torch {torch.__version__} simulates no GPU"
    plain = [
        f"{type(module).__name__}.{key}"
        for module in subject.nonzero_pipeline.matcher.modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor) and value.ndim
    ]
    hint = f"; {', '.join(plain)} is not a buffer: use register_buffer" if plain else ""
    try:
        logits = on_fake_cuda(subject, count, shots)
    except WaitError as error:
        return f"waits for a GPU: {error}"
    except RuntimeError as error:
        apart = "device" in str(error)
        expect(not apart, "all tensors on the matcher's device", f"{one_line(error)}{hint}")
        return f"tensors without values are not supported ({one_line(error)})"
    expected, seen = "logits on the device of the features, cuda", f"{logits.device}{hint}"
    expect(logits.device.type == "cuda", expected, seen)
    return "no wait for a GPU"


def on_fake_cuda(
    subject: MatcherSubject, count: int, shots: int, precision: Precision = "fp32"
) -> Tensor:
    """Return the logits of a batch of episodes, computed on a simulated GPU.

    Args:
        subject: matcher under test.
        count: episodes of the batch.
        shots: K.
        precision: precision of the computation.

    Raises:
        WaitError: a step waits for the device.
        RuntimeError: an operation has tensors of two devices.
    """
    inputs = subject.inputs(subject.cases(count, shots))
    pipeline = subject.pipeline(subject.nonzero_pipeline.matcher, precision)
    fake = FakeCuda()
    pipeline.matcher, pipeline.device = fake.module(pipeline.matcher), CUDA
    supports, masks, queries = fake.tensors(inputs)
    with fake.computing():
        support, queries = embed(supports, masks, queries, pipeline)
        return pipeline.segment(list(map(pipeline.prepare_query, queries)), support)


@CHECKS.add("__init__")
def parameter_counts(subject: MatcherSubject) -> str:
    """The number of learnable parameters is as declared."""
    counts, options = subject.parameter_counts, subject.given
    if counts is None:  # those of the spec are for the default options
        counts, options = subject.spec.parameter_counts, {}
    if not counts:
        here = _learnable(subject.made())
        raise NotCheckedError(f"no counts are declared; {here:,} on {subject.encoder}")
    for name, declared in counts.items():
        found = _learnable(build.matcher(subject.name, name, **options))
        expected = f"{declared:,} learnable parameters on {name}, as declared"
        expect(found == declared, expected, f"{found:,}")
    return ", ".join(f"{count:,} on {name}" for name, count in counts.items())


def _learnable(matcher: Matcher) -> int:
    return sum(p.numel() for p in matcher.parameters() if p.requires_grad)
