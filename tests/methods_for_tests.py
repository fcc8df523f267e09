"""A plugin that tests load with ``-p``: a backbone that costs nothing, matchers that misbehave."""

from __future__ import annotations

import os
import signal
import time

import attrs
import torch
from torch.nn import functional

from fssbench import (
    Backbone,
    BackboneInfo,
    BackboneSpec,
    FeatureRequest,
    FssbenchError,
    LayerInfo,
    Matcher,
    MatcherSpec,
    ProtocolSpec,
    WeightsInfo,
    hookimpl,
)


@hookimpl
def fssbench_backbones():
    return [
        BackboneSpec(
            name="pixels", summary="mean colours of 4 and 8 px cells",
            factory="methods_for_tests:Pixels",
        )
    ]  # fmt: skip


def fssbench_matchers():
    names = {"learner": "Learner", "badly": "Badly", "masked": "Masked", "mixer": "Mixer"}
    return [
        MatcherSpec(
            name=name, summary="for tests", factory=f"methods_for_tests:{cls}",
            config=f"methods_for_tests:{cls}Config" if cls in ("Badly", "Learner") else "",
        )
        for name, cls in names.items()
    ]  # fmt: skip


def fssbench_protocols():
    return [
        ProtocolSpec(
            name="shapes/input-size", summary="for tests", dataset="shapes", split="val",
            sampler="class-balanced", episodes=20, min_pixels=400, score_size="input",
        )
    ]  # fmt: skip


class Pixels(Backbone):
    def __init__(self, weights):
        super().__init__()
        if weights not in ("pretrained", "random", "none"):
            raise FssbenchError("pixels has no weight files")
        layers = {"cells4": LayerInfo(3, 4), "cells8": LayerInfo(3, 8)}
        self.info = BackboneInfo(name="pixels", layers=layers, image_size=64, multiple=8)
        self.weights = WeightsInfo(source="random" if weights == "random" else "none")
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5), persistent=False)
        self.seen = 0
        self.freeze()

    def forward(self, images, layers):
        self.seen += len(images)
        strides = {name: self.info.layer(name).stride for name in layers}
        return {n: functional.avg_pool2d(images - self.mean, s) for n, s in strides.items()}


class Mixer(Matcher):
    """Nearest mean colour; its answer depends on both halves of the contract."""

    def request(self):
        return FeatureRequest(layers=("cells4",), size=64)

    def embed_support(self, support):
        share = functional.avg_pool2d((support.masks == 1).flatten(0, 1).float()[:, None], 4)
        share = share.unflatten(0, support.masks.shape[:2])
        total = share.sum((1, 2, 3, 4)).clamp(min=1e-6)
        return (support.features["cells4"] * share).sum((1, 3, 4)) / total[:, None]

    def segment(self, query, support):
        distance = (query["cells4"] - support[:, :, None, None]).norm(dim=1)
        return 0.2 - distance


class Masked(Mixer):
    def request(self):
        return FeatureRequest(layers=("cells4",), size=64, mask_support=True)


@attrs.frozen(kw_only=True)
class LearnerConfig:
    width: int = 4


class Learner(Mixer):
    """Has weights, so it can have checkpoints."""

    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        self.bias = torch.nn.Parameter(torch.zeros(config.width))

    def segment(self, query, support):
        return super().segment(query, support) + self.bias.sum()


@attrs.frozen(kw_only=True)
class BadlyConfig:
    how: str = "nan"
    after: int = 0


class Badly(Mixer):
    """Fails its contract, or dies, after some episodes."""

    calls = 0

    def segment(self, query, support):
        logits = super().segment(query, support)
        self.calls += 1
        if self.calls <= self.config.after:
            return logits
        match self.config.how:
            case "nan":
                return logits * float("nan")
            case "shape":
                return logits[:, None]
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "slow":
                time.sleep(0.3)
        return logits
