"""A plugin that tests load with ``-p``: a matcher that learns in seconds, in stages."""

from __future__ import annotations

import os
import signal

import attrs
import torch
from methods_for_tests import Mixer, Pixels
from torch import nn
from torch.nn import functional

from fssbench import BackboneSpec, FssbenchError, MatcherSpec, ParameterGroup, Stage, WeightsInfo
from fssbench.backbones import weights as weight_files


def fssbench_backbones():
    return [
        BackboneSpec(name="tints", summary="for tests", factory="trainable_for_tests:Tints"),
    ]


def fssbench_matchers():
    return [
        MatcherSpec(
            name="trainable",
            summary="for tests",
            factory="trainable_for_tests:Trainable",
            config="trainable_for_tests:TrainableConfig",
            stages="trainable_for_tests:stages",
            recipes="trainable_for_tests:trainable_recipes.toml",
        ),
        MatcherSpec(
            name="untrainable", summary="for tests", factory="methods_for_tests:Mixer",
            recipes="trainable_for_tests:trainable_recipes.toml",
        ),
    ]  # fmt: skip


class Tints(Pixels):
    """`Pixels` behind a 3 x 3 matrix of colours, which can be trained."""

    def __init__(self, weights):
        self.model = None
        super().__init__("random" if weights == "none" else "pretrained")
        source = weight_files.Source(info=WeightsInfo(source="random"))
        if weights not in ("pretrained", "random", "none"):
            source = weight_files.resolve(weights, backbone="tints")
        self.model = weight_files.build(
            lambda: nn.Conv2d(3, 3, 1), source, backbone="tints"
        ).requires_grad_(False)
        self.info = attrs.evolve(self.info, name="tints")
        self.weights = source.info

    def forward(self, images, layers):
        return super().forward(self.model(images), layers)


@attrs.frozen(kw_only=True)
class TrainableConfig:
    width: int = 8
    dropout: float = 0.0
    fail: str = ""
    at: int = -1


class Trainable(Mixer):
    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        self.mix = nn.Conv2d(6, config.width, 1)
        self.norm = nn.GroupNorm(1, config.width)
        self.out = nn.Conv2d(config.width, 1, 1)
        self.unused = nn.Parameter(torch.ones(3))

    def segment(self, query, support):
        colours = query["cells4"]
        both = torch.cat([colours, colours - support[:, :, None, None]], 1)
        hidden = functional.dropout(self.mix(both), self.config.dropout, self.training)
        return self.out(self.norm(hidden).relu())[:, 0]


def stages(matcher):
    return Meta(), Base(matcher), Plain(), Tuned()


class Meta(Stage):
    name = "meta"
    feeds = "episodes"
    base_classes = 15  # of `shapes`
    calls = 0

    def parameters(self, matcher, recipe):
        head = list(matcher.out.parameters())
        body = [*matcher.mix.parameters(), *matcher.norm.parameters()]
        return [
            ParameterGroup(name="body", parameters=body),
            ParameterGroup(name="head", parameters=head, lr_scale=2.0, weight_decay=0.0),
        ]

    def losses(self, matcher, batch):
        self._fail(matcher.config)
        assert len(batch.classes) == self.base_classes
        assert set(batch.class_ids.tolist()) <= set(batch.classes)
        logits = matcher(batch.query, batch.support, batch.support_masks)
        truth = functional.adaptive_avg_pool2d(
            (batch.query_masks == 1).float()[:, None], logits.shape[-2:]
        )[:, 0]
        if matcher.config.fail in ("nan", "inf") and Meta.calls - 1 == matcher.config.at:
            logits = logits * float(matcher.config.fail)
        return {
            "bce": functional.binary_cross_entropy_with_logits(logits, truth),
            "size": (logits.sigmoid().mean((1, 2)) - truth.mean((1, 2))).square().mean(),
        }

    def _fail(self, config):
        Meta.calls += 1
        if Meta.calls - 1 != config.at:
            return
        match config.fail:
            case "memory":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "own":
                raise FssbenchError("this method wants more")


class Base(Stage):
    """A head of its own that no checkpoint holds, and labels."""

    name = "base"
    feeds = "labelled"
    validates = False

    def __init__(self, matcher):
        self.head = nn.Conv2d(matcher.config.width, 16, 1)

    def modules(self):
        return [self.head]

    def parameters(self, matcher, recipe):
        return [
            ParameterGroup(
                name="all", parameters=[*self.head.parameters(), *matcher.mix.parameters()]
            )
        ]

    def losses(self, matcher, batch):
        assert batch.labels.dtype == torch.int64
        assert len(batch.classes) == 15
        colours = batch.features["cells4"]
        logits = self.head(matcher.mix(torch.cat([colours, colours], 1)).relu())
        logits = functional.interpolate(logits, batch.labels.shape[-2:])
        return {"ce": functional.cross_entropy(logits, batch.labels, ignore_index=255)}


class Plain(Stage):
    name = "plain"
    feeds = "images"

    def losses(self, matcher, batch):
        target = functional.avg_pool2d(batch.images, 4).mean(1)
        colours = batch.features["cells4"]
        found = matcher.out(matcher.mix(torch.cat([colours, colours], 1)).relu())[:, 0]
        return {"mse": functional.mse_loss(found, target)}


class Tuned(Meta):
    name = "tuned"
    trains_backbone = True
