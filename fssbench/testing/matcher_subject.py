"""Matcher under test, with an encoder, images and predictions."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.inference.pipeline import Features, Pipeline
from fssbench.matchers.matcher import Matcher
from fssbench.runtime.device import Precision
from fssbench.specs import BackboneSpec, MatcherSpec
from fssbench.testing.backbones import BackboneSubject
from fssbench.testing.check import Subject
from fssbench.testing.synthetic import Picture, picture
from fssbench.training.recipe import Recipe, find_recipe, first_backbone, recipe_names

EMBEDDED_DATASET = "shapes"
"""Dataset that needs no files; its recipes configure small matchers."""


@attrs.frozen(eq=False)
class Case:
    """A query and its supports."""

    query: Picture
    supports: tuple[Picture, ...]


@attrs.frozen(kw_only=True, eq=False, slots=False)
class MatcherSubject(Subject):
    """A registered matcher on an encoder.

    Attributes:
        backbone_name: encoder; "" for that of the matcher's last recipe for `shapes`, of its first
            recipe, or ``tiny-resnet``.
        weights: encoder weights; "" for random ones, or pretrained ones if it has no random ones.
        given: options; they override those of the recipe for `shapes`.
        parameter_counts: learnable parameters with these options, by backbone; None for those of
            the spec.
        recipes: recipes to train with, by stage; other stages use a default.
        part_weights: values of ``--weights PART=…``, by stage; other stages use random weights.
    """

    spec_class = MatcherSpec
    backbone_name: str = attrs.field(default="", alias="backbone")
    weights: str = ""
    given: Mapping[str, Any] = attrs.field(factory=dict, alias="options")
    parameter_counts: Mapping[str, int] | None = None
    recipes: Mapping[str, str] = attrs.field(factory=dict)
    part_weights: Mapping[str, Mapping[str, str]] = attrs.field(factory=dict)
    _encoded: dict[object, Features] = attrs.field(init=False, factory=dict)

    @cached_property
    def shapes_recipe(self) -> Recipe | None:
        """Recipe for `shapes` of the last stage that has one."""
        stages = [s for s, names in recipe_names(self.spec).items() if EMBEDDED_DATASET in names]
        return find_recipe(self.spec, stages[-1], dataset=EMBEDDED_DATASET) if stages else None

    @cached_property
    def encoder(self) -> str:
        """Registered name of the encoder."""
        from_recipe = self.shapes_recipe.backbone if self.shapes_recipe else ""
        wanted = self.backbone_name or from_recipe or first_backbone(self.spec) or "tiny-resnet"
        return registry.registry().get(BackboneSpec, wanted).name

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Options of the recipe for `shapes`, overridden by those given."""
        from_recipe = self.shapes_recipe.options if self.shapes_recipe else {}
        return {**from_recipe, **self.given}

    @cached_property
    def backbone(self) -> Backbone:
        """The encoder."""
        return BackboneSubject(name=self.encoder, weights=self.weights).backbone

    def made(self, seed: int = 0) -> Matcher:
        """Return a new matcher with the initial weights of a seed, as in training."""
        torch.manual_seed(seed)
        return build.matcher(self.name, self.backbone, **self.options)

    @cached_property
    def nonzero_pipeline(self) -> Pipeline:
        """Pipeline whose matcher has no zero weights.

        Last layers are often initialised to zero; then the output would not depend on the input.
        """
        matcher = self.made()
        stir(matcher)
        return self.pipeline(matcher)

    def pipeline(
        self, matcher: Matcher, precision: Precision = "fp32", device: str = "cpu"
    ) -> Pipeline:
        """Return the pipeline of a matcher and a copy of the encoder."""
        backbone = self.backbone if device == "cpu" else copy.deepcopy(self.backbone)
        return Pipeline(matcher, backbone, device=torch.device(device), precision=precision)

    def features(self, shown: Picture, *, support: bool) -> Features:
        """Return the features of an image at the requested size, computed once."""
        pipeline = self.nonzero_pipeline
        square = pipeline.geometry.mask(shown.mask)
        hide = support and pipeline.request.mask_support
        key = (id(shown.image), square.numpy().tobytes() if hide else None)
        if key not in self._encoded:
            image = pipeline.geometry.image(shown.image)[None]
            self._encoded[key] = pipeline.encode(image, [square] if hide else None)[0]
        return self._encoded[key]

    def inputs(self, cases: Sequence[Case]) -> tuple[list[list[Features]], Tensor, list[Features]]:
        """Return features of supports, masks (B, K, S, S), and features of queries."""
        geometry = self.nonzero_pipeline.geometry
        supports = [[self.features(s, support=True) for s in case.supports] for case in cases]
        masks = [torch.stack([geometry.mask(s.mask) for s in case.supports]) for case in cases]
        queries = [self.features(case.query, support=False) for case in cases]
        return supports, torch.stack(masks), queries

    def embedded(
        self, cases: Sequence[Case], pipeline: Pipeline | None = None
    ) -> tuple[Any, list[Features]]:
        """Return the embedded support sets, and the features of queries."""
        return embed(*self.inputs(cases), pipeline or self.nonzero_pipeline)

    def answer(self, cases: Sequence[Case], pipeline: Pipeline | None = None) -> Tensor:
        """Return logits (B, h, w), computed as in an evaluation."""
        pipeline = pipeline or self.nonzero_pipeline
        support, queries = self.embedded(cases, pipeline)
        return pipeline.logits_of(queries, support)

    @cached_property
    def pictures(self) -> list[Picture]:
        """Eighteen images, enough for three episodes of five shots."""
        return [picture(number) for number in range(18)]

    def cases(self, count: int, shots: int) -> list[Case]:
        """Return up to three episodes."""
        return [
            Case(self.pictures[6 * n], tuple(self.pictures[6 * n + 1 : 6 * n + 1 + shots]))
            for n in range(count)
        ]


def embed(
    supports: Sequence[Sequence[Features]],
    masks: Tensor,
    queries: Sequence[Features],
    pipeline: Pipeline,
) -> tuple[Any, list[Features]]:
    """Return the embedded support sets, and the features of queries, on a pipeline's device.

    Args:
        supports: features of K supports of each of B episodes.
        masks: their masks, uint8 (B, K, S, S).
        queries: features of the B queries.
        pipeline: pipeline to embed with.
    """

    def there(features: Features) -> Features:
        return {n: maps.to(pipeline.device, non_blocking=True) for n, maps in features.items()}

    prepared = [
        [pipeline.prepare_support(there(f), mask) for f, mask in zip(*case, strict=True)]
        for case in zip(supports, masks, strict=True)
    ]
    return pipeline.embed_support(prepared), list(map(there, queries))


def stir(matcher: Matcher, seed: int = 0) -> None:
    """Add noise to every float parameter: a tenth of its root mean square, or 0.02."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in matcher.parameters():
            if parameter.is_floating_point():
                size = 0.1 * float(parameter.square().mean().sqrt()) or 0.02
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(size * noise.to(parameter))
