"""Checks of the matcher interface; see `fssbench.Matcher`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from fssbench import build
from fssbench.errors import one_line
from fssbench.inference.pipeline import Features
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.matchers.matcher import Matcher
from fssbench.testing.check import Checks, NotCheckedError, expect, locations
from fssbench.testing.matcher_subject import Case, MatcherSubject
from fssbench.testing.random_state import Watch, place_generators
from fssbench.testing.synthetic import picture
from fssbench.testing.training_step import take_steps

TOLERANCE = 1e-3
"""Tolerance for the order of summation, relative to the largest logit."""

CHECKS = Checks("matcher")

_APART = ("is not on the expected device", "to be on the same device", "must be on the same device")


# --- forward pass ---------------------------------------------------------------------------------


@CHECKS.add("request")
def request(subject: MatcherSubject) -> str:
    """`request` gives layers of the backbone, a size that it accepts, and a way to resize."""
    asked, info = subject.made().request(), subject.backbone.info
    expect(bool(asked.layers), "at least one layer", "no layers")
    for layer in asked.layers:
        info.layer(layer)
    expect(
        asked.size > 0 and asked.size % info.multiple == 0,
        f"a size that is a multiple of {info.multiple}, as backbone {info.name} requires",
        f"size={asked.size}",
    )
    known = ("squash", "letterbox")
    expect(asked.resize in known, f"resize: one of {', '.join(known)}", f"{asked.resize!r}")
    return f"{', '.join(asked.layers)} of {asked.size} px, {asked.resize}"


@CHECKS.add("embed_support", "segment")
def shots(subject: MatcherSubject) -> str:
    """One and five shots give finite logits (B, h, w)."""
    shapes = []
    for number in (1, 5):
        logits = subject.answer(subject.cases(2, number))
        expect(
            min(logits.shape[1:]) > 0, "logits of at least 1 x 1", f"shape {tuple(logits.shape)}"
        )
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
        apart = largest(together - alone) / max(largest(alone), 1e-6)
        expect(
            apart <= TOLERANCE,
            f"logits that differ by at most {TOLERANCE:g} of the largest, batch of 1 or 3",
            f"{number}-shot logits differ by {apart:.2g} of the largest",
        )
        worst = max(worst, apart)
    return f"largest difference {worst:.1g} of the largest logit"


@CHECKS.add("embed_support", "segment", "request")
def non_square(subject: MatcherSubject) -> str:
    """Supports and queries of any aspect ratio are segmented."""
    case = Case(picture(30, 72, 128), (picture(31, 128, 64), picture(32, 60, 100)))
    logits = subject.answer([case])[0]
    mask = subject.nonzero_pipeline.geometry.restore(logits, 72, 128)
    expect(
        tuple(mask.shape) == (72, 128) and bool(torch.isfinite(mask).all()),
        "finite logits that fit the image of 72 x 128",
        f"shape {tuple(mask.shape)}, finite: {bool(torch.isfinite(mask).all())}",
    )
    return (
        f"query 72 x 128, supports 128 x 64 and 60 x 100, {subject.nonzero_pipeline.request.resize}"
    )


@CHECKS.add("embed_support")
def empty_masks(subject: MatcherSubject) -> str:
    """Supports with an empty mask give finite logits, alone and among others."""
    query, *others = subject.pictures[:6]
    for supports in ((others[0].empty(),), (others[0].empty(), *others[1:])):
        subject.answer([Case(query, supports)])
    return "finite, 1-shot and one of 5"


@CHECKS.add("embed_support")
def full_masks(subject: MatcherSubject) -> str:
    """Supports with a full mask give finite logits, alone and among others."""
    query, *others = subject.pictures[:6]
    for supports in ((others[0].full(),), (others[0].full(), *others[1:])):
        subject.answer([Case(query, supports)])
    return "finite, 1-shot and one of 5"


@CHECKS.add("embed_support")
def ignored_pixels(subject: MatcherSubject) -> str:
    """Pixels of 255 in a support's mask are not foreground, and all of them may be 255."""
    query, shown = subject.pictures[:2]
    ignored, background, foreground = (
        subject.answer([Case(query, (shown.with_other(value),))]) for value in (255, 0, 1)
    )
    to_background, to_foreground = largest(ignored - background), largest(ignored - foreground)
    slack = 1e-5 * max(largest(background), 1e-6)
    expect(
        to_background <= to_foreground + slack,
        "logits with an object of 255 near those with it as background: 255 is background or "
        "ignored",
        f"they are {to_foreground:.3g} from those with it marked 1, {to_background:.3g} from "
        "those with it marked 0",
    )
    subject.answer([Case(query, (shown.unlabelled(),))])
    return f"{to_background:.2g} from background, {to_foreground:.2g} from foreground"


@CHECKS.add("embed_support", "segment")
def support_matters(subject: MatcherSubject) -> str:
    """Shuffling the pixels of the support mask changes the logits."""
    query, shown = subject.pictures[:2]
    right = subject.answer([Case(query, (shown,))])
    wrong = subject.answer([Case(query, (shown.permuted(),))])
    changed = largest(right - wrong) / max(largest(right), 1e-6)
    expect(
        changed > 1e-6,
        "other logits when the pixels of the support's mask are shuffled: the mask selects the "
        "object",
        "the same logits",
    )
    return f"logits change by {changed:.2g} of the largest"


@CHECKS.add("maps")
def maps(subject: MatcherSubject) -> str:
    """`maps` returns float maps (B, h, w) by caption, or none."""
    supports, masks, queries = subject.inputs(subject.cases(2, 1))
    pipeline = subject.nonzero_pipeline
    support = pipeline.embed_support(
        [list(map(pipeline.prepare_support, *case)) for case in zip(supports, masks, strict=True)]
    )
    found = pipeline.maps(list(map(pipeline.prepare_query, queries)), support)
    for caption, each in found.items():
        expect(
            each.ndim == 3 and len(each) == 2,
            f"map {caption!r} of shape (2, h, w) for two queries",
            f"shape {tuple(each.shape)}",
        )
    return ", ".join(found) or "none"


@CHECKS.add("prepare_support", "prepare_query")
def prepared(subject: MatcherSubject) -> str:
    """Images prepared in one batch give the logits of images prepared one by one."""
    matcher, worst = subject.nonzero_pipeline.matcher, 0.0
    for number in (1, 5):
        cases = subject.cases(2, number)
        expected = subject.answer(cases)
        found = _forward(matcher, *subject.inputs(cases), torch.device("cpu"))
        apart = (
            largest(found - expected) / max(largest(expected), 1e-6)
            if found.shape == expected.shape
            else float("inf")
        )
        expect(
            apart <= TOLERANCE,
            f"the same {number}-shot logits from images prepared in one batch and one by one",
            f"shape {tuple(found.shape)}, they differ by {apart:.2g} of the largest",
        )
        worst = max(worst, apart)
    return f"largest difference {worst:.1g} of the largest logit"


# --- randomness -----------------------------------------------------------------------------------


@CHECKS.add("__init__", "embed_support", "segment")
def determinism(subject: MatcherSubject) -> str:
    """The same seed gives the same weights and the same episode the same logits, bit for bit."""
    states = []
    for number in (1, 2):
        place_generators(number)
        states.append(subject.made(seed=7).state_dict())
    for name, tensor in states[0].items():
        expect(
            torch.equal(tensor, states[1][name]),
            "the same initial weights from the same torch seed",
            f"{name} differs: it was drawn from another generator",
            "",
        )
    cases = subject.cases(2, 5)
    answers = []
    for number in (1, 2):
        place_generators(number)
        answers.append(subject.answer(cases))
    expect(
        torch.equal(*answers),
        "the same logits from a second call",
        f"they differ by up to {largest(answers[0] - answers[1]):.3g}; the matcher is in eval mode",
    )
    return "weights and logits are the same bit for bit"


@CHECKS.add("embed_support", "segment")
def generators(subject: MatcherSubject) -> str:
    """Creating a matcher and segmenting do not use the global random generators.

    Exception: initial weights come from torch's generator, which training seeds.
    """
    watch = Watch()
    subject.made()
    expect(
        not watch.moved().removesuffix("torch"),
        "random and numpy.random are unchanged when a matcher is created; initial weights come "
        "from torch's generator",
        f"{watch.moved()} changed",
        locations(subject.thing, ("__init__",)),
    )
    cases = subject.cases(1, 1)
    subject.inputs(cases)
    pipeline = subject.nonzero_pipeline
    watch = Watch()
    pipeline.matcher.request()
    subject.answer(cases)
    expect(
        not watch.moved(),
        "random, numpy.random and torch are unchanged; a method that draws creates its own "
        "torch.Generator",
        f"{watch.moved()} changed",
    )
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
            f"stage {name}: a gradient, possibly zero, for each of `parameters` (required for "
            "several processes)",
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
    found = subject.answer(cases, subject.pipeline(other))
    expect(
        torch.equal(found, expected),
        "the same logits from a matcher of another seed that loaded the checkpoint",
        f"they differ by up to {largest(found - expected):.3g}: some state is neither "
        "parameter nor buffer",
    )
    return f"{len(matcher.state_dict())} tensors through a file"


@CHECKS.add("__init__", "embed_support", "segment")
def devices(subject: MatcherSubject) -> str:
    """The matcher runs on the device that it was moved to."""
    cases = subject.cases(1, 1)
    supports, masks, queries = subject.inputs(cases)
    notes = [_on_meta(subject, supports, masks, queries)]
    if torch.cuda.is_available():
        device = torch.device("cuda")
        moved = copy.deepcopy(subject.nonzero_pipeline.matcher).to(device)
        logits = _forward(moved, supports, masks, queries, device)
        expected = subject.answer(cases)
        apart = largest(logits.cpu() - expected) / max(largest(expected), 1e-6)
        expect(
            apart <= 0.01,
            "logits on the GPU within 1 % of the CPU's",
            f"they differ by {apart:.2g}",
        )
        notes.append(f"cuda within {apart:.1g}")
    else:
        notes.append("no GPU")
    return ", ".join(notes)


def _on_meta(
    subject: MatcherSubject, supports: list[list[Features]], masks: Tensor, queries: list[Features]
) -> str:
    """Run on the meta device, where operands on different devices raise an error."""
    device = torch.device("meta")
    moved = copy.deepcopy(subject.nonzero_pipeline.matcher).to(device)
    plain = [
        f"{type(module).__name__}.{key}"
        for module in moved.modules()
        for key, value in vars(module).items()
        if isinstance(value, Tensor) and value.ndim
    ]
    hint = f"; {', '.join(plain)} is not a buffer: use register_buffer" if plain else ""
    try:
        logits = _forward(moved, supports, masks, queries, device)
    except (NotImplementedError, RuntimeError) as error:
        text = one_line(error)
        # Operations that need values (a count of pixels, say) or do not support meta tensors have
        # other messages than operands on different devices.
        expect(
            not any(words in text for words in _APART),
            "all tensors on the matcher's device",
            f"{text}{hint}",
        )
        return f"meta tensors are not supported ({text})"
    expect(
        logits.device.type == "meta",
        "logits on the device of the features",
        f"features on meta, logits on {logits.device}{hint}",
    )
    return "meta"


def _forward(
    matcher: Matcher,
    supports: list[list[Features]],
    masks: Tensor,
    queries: list[Features],
    device: torch.device,
) -> Tensor:
    layers = matcher.request().layers
    with torch.inference_mode():
        logits: Tensor = matcher(
            {name: torch.stack([f[name] for f in queries]).to(device) for name in layers},
            {
                name: torch.stack([torch.stack([f[name] for f in each]) for each in supports]).to(
                    device
                )
                for name in layers
            },
            masks.to(device),
        )
    return logits


@CHECKS.add("__init__")
def parameter_counts(subject: MatcherSubject) -> str:
    """The number of learnable parameters is as declared."""
    mine = subject.counts is not None
    counts = subject.counts if subject.counts is not None else subject.spec.parameter_counts
    if not counts:
        here = sum(p.numel() for p in subject.made().parameters() if p.requires_grad)
        raise NotCheckedError(f"no counts are declared; {here:,} on {subject.encoder}")
    notes = []
    for name, declared in counts.items():
        options = subject.given if mine else {}
        matcher = build.matcher(subject.name, name, **options)
        found = sum(p.numel() for p in matcher.parameters() if p.requires_grad)
        expect(
            found == declared,
            f"{declared:,} learnable parameters on {name}, as declared",
            f"{found:,}",
        )
        notes.append(f"{found:,} on {name}")
    return ", ".join(notes)


def largest(tensor: Tensor) -> float:
    """Return the largest absolute value."""
    return float(tensor.abs().max())
