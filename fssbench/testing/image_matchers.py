"""Checks of the interface of matchers on whole images; see `fssbench.ImageMatcher`."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench import build
from fssbench.backbones.encoder import Encoder
from fssbench.data.dataset import IGNORE
from fssbench.errors import FssbenchError
from fssbench.inference.encoder_cache import EncoderCache
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.matchers.image_matcher import EpisodeImages
from fssbench.model import joined
from fssbench.specs import MatcherSpec
from fssbench.testing.check import (
    Checks,
    NotCheckedError,
    Subject,
    expect,
    expect_close,
    expect_tensor,
    expect_unchanged_generators,
    locations,
)
from fssbench.testing.matcher_subject import Case
from fssbench.testing.synthetic import Picture, picture
from fssbench.unaccounted import unaccounted_parameters

CHECKS = Checks("matcher")
_BUDGET = 1 << 30


@attrs.frozen(kw_only=True, eq=False, slots=False)
class ImageMatcherSubject(Subject):
    """A registered image matcher with its encoders.

    Attributes:
        given_encoders: encoders by role, instead of the ``small_encoders`` of the spec, or of its
            default ones.
        weights: weights by role; random by default, or pretrained for an encoder that has no
            random ones.
        options: options of the matcher.
    """

    spec_class = MatcherSpec
    given_encoders: Mapping[str, str] = attrs.field(factory=dict, alias="encoders")
    weights: Mapping[str, str] = attrs.field(factory=dict)
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @cached_property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by role, shared by all checks."""
        names = build.roles(self.spec, {**self.spec.small_encoders, **self.given_encoders})
        return {role: self._encoder(role, str(name)) for role, name in names.items()}

    def _encoder(self, role: str, name: str) -> Encoder:
        if role in self.weights:
            return build.encoder(role, name, self.weights[role])
        try:
            return build.encoder(role, name, "random")
        except FssbenchError:
            return build.encoder(role, name, "pretrained")

    def made(self) -> ImagePipeline:
        """Return the pipeline of a new matcher, with an empty cache."""
        matcher = build.image_matcher(self.name, self.encoders, **self.options)
        made = ImagePipeline(matcher, device=torch.device("cpu"))
        EncoderCache(made, _BUDGET)
        return made

    @cached_property
    def pipeline(self) -> ImagePipeline:
        """Pipeline shared by all checks that need no new one."""
        return self.made()

    def episode(self, case: Case, class_name: str = "traffic light") -> EpisodeImages:
        """Return a case as an episode, with copies of its tensors."""
        return EpisodeImages(
            query=case.query.image.clone(),
            images=tuple(shown.image.clone() for shown in case.supports),
            masks=tuple(shown.mask.clone() for shown in case.supports),
            class_name=class_name if "class_names" in self.spec.uses else None,
            generator=torch.Generator().manual_seed(0),
        )

    def answers(self, cases: Sequence[Case]) -> list[Tensor]:
        """Return the finite logits (H, W) of each case, segmented together."""
        found = self.pipeline.predict([self.episode(case) for case in cases])
        for logits in found:
            finite = bool(torch.isfinite(logits).all())
            expect(finite, "finite logits", "NaN or infinity")
        return found

    def answer(self, case: Case) -> Tensor:
        """Return the logits (H, W) of a case."""
        (logits,) = self.answers([case])
        return logits

    def cases(self, count: int, shots: int) -> list[Case]:
        """Return episodes of synthetic images."""
        pictures = [[picture(6 * n + k) for k in range(1 + shots)] for n in range(count)]
        return [Case(query, tuple(shown)) for query, *shown in pictures]


@CHECKS.add("predict")
def shots(subject: ImageMatcherSubject) -> str:
    """One and five shots give finite logits at the size of the query."""
    for number in (1, 5):
        (case,) = subject.cases(1, number)
        logits = subject.answer(case)
        expect_tensor(logits, logits.shape == case.query.mask.shape, "logits of the query's size")
    return "1-shot and 5-shot"


@CHECKS.add("predict_batch")
def batch(subject: ImageMatcherSubject) -> str:
    """An episode's logits are the same alone and in a batch of three."""
    cases = subject.cases(3, 2)
    worst = 0.0
    for together, case in zip(subject.answers(cases), cases, strict=True):
        expected = "the same logits in a batch of 1 and of 3"
        worst = max(worst, expect_close(together, subject.answer(case), expected))
    return f"largest difference {worst:.1g} of the largest logit"


@CHECKS.add("predict")
def non_square(subject: ImageMatcherSubject) -> str:
    """Supports and queries of any aspect ratio are segmented."""
    case = Case(picture(30, 72, 128), (picture(31, 128, 64), picture(32, 60, 100)))
    logits = subject.answer(case)
    expect_tensor(logits, logits.shape == (72, 128), "logits of 72 x 128")
    return "query 72 x 128, supports 128 x 64 and 60 x 100"


@CHECKS.add("predict")
def empty_masks(subject: ImageMatcherSubject) -> str:
    """Supports with an empty mask give finite logits, alone and among others."""
    return _with_mask_of(subject, 0)


@CHECKS.add("predict")
def full_masks(subject: ImageMatcherSubject) -> str:
    """Supports with a full mask give finite logits, alone and among others."""
    return _with_mask_of(subject, 1)


@CHECKS.add("predict")
def ignored_masks(subject: ImageMatcherSubject) -> str:
    """Supports with a mask of 255 give finite logits, alone and among others."""
    return _with_mask_of(subject, IGNORE)


@CHECKS.add("predict")
def small_masks(subject: ImageMatcherSubject) -> str:
    """A support with one marked pixel gives finite logits."""
    (case,) = subject.cases(1, 1)
    mask = torch.zeros_like(case.supports[0].mask)
    mask[40, 17] = 1
    subject.answer(Case(case.query, (attrs.evolve(case.supports[0], mask=mask),)))
    return "finite"


def _with_mask_of(subject: ImageMatcherSubject, value: int) -> str:
    (case,) = subject.cases(1, 5)
    first, *others = case.supports
    filled: Picture = first.filled(value)
    subject.answer(Case(case.query, (filled,)))
    subject.answer(Case(case.query, (filled, *others)))
    return "finite, 1-shot and one of 5"


@CHECKS.add("predict")
def support_matters(subject: ImageMatcherSubject) -> str:
    """Other masks change the logits; for a method that takes class names, another name may do so.

    A class name must change the logits by itself.
    """
    changed = 0
    named = "class_names" in subject.spec.uses
    cases = subject.cases(3, 1)
    for case in cases:
        right = subject.answer(case)
        if named:
            (other,) = subject.pipeline.predict([subject.episode(case, "small brown dog")])
        else:
            wrong = tuple(attrs.evolve(shown, mask=shown.other) for shown in case.supports)
            other = subject.answer(Case(case.query, wrong))
        changed += not torch.equal(right, other)
    what = "another class name" if named else "masks of the other object"
    expect(bool(changed), f"other logits with {what}", f"the same in all {len(cases)} episodes")
    return f"{changed} of {len(cases)} episodes change with {what}"


@CHECKS.add("predict")
def independence(subject: ImageMatcherSubject) -> str:
    """An episode's logits are the same bit for bit after another episode, and in a new matcher."""
    first, second = subject.cases(2, 2)
    before = subject.answer(first)
    subject.answer(second)
    after = subject.answer(first)
    expect_close(after, before, "the same logits after another episode", tolerance=0)
    new = subject.made()
    _same_parameters(new, subject.pipeline)
    (fresh,) = new.predict([subject.episode(first)])
    expect_close(fresh, before, "the same logits in a new matcher", tolerance=0)
    return "equal after another episode, and in a new matcher"


def _same_parameters(target: ImagePipeline, source: ImagePipeline) -> None:
    target.matcher.load_state_dict(source.matcher.state_dict())


@CHECKS.add("predict")
def inputs(subject: ImageMatcherSubject) -> str:
    """`predict` does not write to the images and masks of an episode."""
    (case,) = subject.cases(1, 2)
    episode = subject.episode(case)
    subject.pipeline.predict([episode])
    own = [case.query.image, *(s.image for s in case.supports), *(s.mask for s in case.supports)]
    found = [episode.query, *episode.images, *episode.masks]
    same = all(map(torch.equal, own, found))
    expect(same, "unchanged images and masks", "predict changed one of them")
    return "unchanged"


@CHECKS.add("predict")
def generators(subject: ImageMatcherSubject) -> str:
    """`predict` does not use the global random generators, but ``episode.generator``."""
    (case,) = subject.cases(1, 1)
    with expect_unchanged_generators("; draw from episode.generator"):
        subject.answer(case)
    return "random, numpy.random and torch are unchanged"


@CHECKS.add("maps")
def maps(subject: ImageMatcherSubject) -> str:
    """`maps` returns float maps (h, w) by caption, or none."""
    (case,) = subject.cases(1, 1)
    found = subject.pipeline.maps(subject.episode(case))
    for caption, each in found.items():
        expect_tensor(each, each.ndim == 2, f"map {caption!r} of shape (h, w)")
    return ", ".join(found) or "none"


@CHECKS.add("__init__")
def parameters(subject: ImageMatcherSubject) -> str:
    """All parameters are the matcher's own, or those of declared encoders."""
    pipeline = subject.pipeline
    own = sum(p.numel() for p in pipeline.matcher.parameters())
    hidden = [
        text
        for text in unaccounted_parameters(pipeline.matcher, pipeline.frozen, None)
        if not text.endswith("without a checkpoint")
    ]
    expect(not hidden, "no other parameters", "; ".join(hidden))
    encoders = {id(p) for module in pipeline.frozen for p in module.parameters()}
    shared = sum(p.numel() for p in pipeline.matcher.parameters() if id(p) in encoders)
    expect(
        not shared,
        "encoders in self.encoders alone, which are no submodules",
        f"{shared:,} parameters of encoders are among those of the matcher",
        locations(subject.thing, ("__init__",)),
    )
    counts = [f"{role} {encoder.parameters:,}" for role, encoder in subject.encoders.items()]
    return f"own {own:,}; {', '.join(counts) or 'no encoders'}"


@CHECKS.add("__init__")
def state_dict(subject: ImageMatcherSubject) -> str:
    """A new matcher that loads the checkpoint gives the same logits."""
    pipeline = subject.pipeline
    if not pipeline.matcher.state_dict():
        raise NotCheckedError("the matcher has no parameters of its own")
    (case,) = subject.cases(1, 1)
    expected = subject.answer(case)
    names = {role: encoder.name for role, encoder in subject.encoders.items()}
    header = {"matcher": subject.name, "config": {}, "backbone": joined(names)}
    other = subject.made()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "all.safetensors"
        write_checkpoint(path, pipeline.matcher, header)
        read_checkpoint(path).load_into(other.matcher)
    (found,) = other.predict([subject.episode(case)])
    same = "the same logits from a new matcher that loaded the checkpoint"
    expect_close(found, expected, same, tolerance=0)
    return f"{len(pipeline.matcher.state_dict())} tensors through a file"


@CHECKS.add("__init__", "predict")
def devices(subject: ImageMatcherSubject) -> str:
    """The matcher runs on a GPU, if there is one."""
    if not torch.cuda.is_available():
        raise NotCheckedError("no GPU")
    (case,) = subject.cases(1, 1)
    expected = subject.answer(case)
    pipeline = ImagePipeline(copy.deepcopy(subject.pipeline.matcher), device=torch.device("cuda"))
    episode = subject.episode(case)
    moved = attrs.evolve(
        episode,
        query=episode.query.cuda(),
        images=tuple(image.cuda() for image in episode.images),
        masks=tuple(mask.cuda() for mask in episode.masks),
    )
    (found,) = pipeline.predict([moved])
    changed = float(((found.cpu() > 0) != (expected > 0)).float().mean())
    expect(changed <= 0.01, "99 % of the pixels as on the CPU", f"{100 * changed:.1f} % differ")
    return f"{100 * changed:.2g} % of the pixels differ from the CPU's"
