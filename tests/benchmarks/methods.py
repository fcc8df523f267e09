"""The methods that are timed, and what their parts cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import attrs
import torch

from fssbench import build
from fssbench.data.geometry import stack_padded
from fssbench.inference.pipeline import Pipeline
from fssbench.metrics.iou import IoU

METHODS = {
    "dcama": ("dcama", "resnet50"),
    "hdmnet": ("hdmnet", "resnet50-psp"),
    "fsdino": ("fsdino", "dinov2-b"),
    "uinofss-comp": ("uinofss-comp", "dinov2-b"),
    "uinofss": ("uinofss", "dinov2-b"),
}


def pipeline_of(method: str, precision: str = "fp32", device: str = "cpu") -> Pipeline:
    """A method with random weights."""
    matcher, backbone = METHODS[method]
    torch.manual_seed(0)
    encoder = build.backbone(backbone, "random")
    return Pipeline(
        build.matcher(matcher, encoder), encoder, device=torch.device(device), precision=precision
    )


@attrs.frozen(kw_only=True)
class Clock:
    """Seconds on the wall, and of all cores together (which other programs do not lengthen)."""

    wall: float
    cpu: float

    @staticmethod
    def now() -> Clock:
        return Clock(wall=time.perf_counter(), cpu=time.process_time())

    def __sub__(self, other: Clock) -> Clock:
        return Clock(wall=self.wall - other.wall, cpu=self.cpu - other.cpu)

    def __add__(self, other: Clock) -> Clock:
        return Clock(wall=self.wall + other.wall, cpu=self.cpu + other.cpu)


def timed(call: Callable[[], Any], rounds: int = 2) -> tuple[float, Any]:
    """Median CPU seconds after a first call that does not count, and the last result."""
    result, times = call(), []
    for _ in range(rounds):
        start = Clock.now()
        result = call()
        times.append((Clock.now() - start).cpu)
    return statistics.median(times), result


@attrs.frozen(kw_only=True)
class Profile:
    """CPU seconds of the parts of an episode.

    Attributes:
        load: decoding and resizing one image and its mask.
        encode: one image through the backbone.
        support: what is made of one support image.
        query: what is made of one query image.
        join: K supports together.
        match: logits of a prepared query and joined supports.
        score: logits to the image's size, and counting.
        megabytes: of one image's features, of a prepared support and of a prepared query.
    """

    load: float
    encode: float
    support: float
    query: float
    join: float
    match: float
    score: float
    megabytes: tuple[float, float, float]

    def plain(self, shots: int) -> float:
        """An episode of the plain loop."""
        images = (1 + shots) * (self.load + self.encode)
        return images + shots * self.support + self.query + self.join + self.match + self.score

    def cached(self, shots: int, *, masked: bool) -> float:
        """The floor of an episode with everything of an image made once: PASCAL's fold 0.

        Of 346 pairs all are queries, and nearly all are supports of some episode. Masked supports
        are encoded beside the whole images.
        """
        seen = 1 - (1 - 1 / 69) ** (200 * shots)  # of a class's 69 images, in its 200 episodes
        each = 346 / 1000
        images = each * (1 + seen if masked else 1)
        joined = each * seen if shots == 1 else 1.0
        made = images * (self.load + self.encode) + each * (self.query + seen * self.support)
        return made + joined * self.join + self.match + self.score + self.load / 3  # its target


def profile(pipeline: Pipeline, dataset: Any, shots: int) -> Profile:
    """Measure the parts one by one."""
    from fssbench.nn import tensors

    geometry, (first, *_) = pipeline.geometry, dataset.image_ids("val")
    load, (image, mask) = timed(
        lambda: (geometry.image(dataset.image(first)), geometry.mask(dataset.mask(first, 0)))
    )
    keep = [mask] if pipeline.request.mask_support else None
    encode, (features,) = timed(lambda: pipeline.encode(image[None], keep))
    support, prepared = timed(lambda: pipeline.prepare_support(features, mask))
    query, asked = timed(lambda: pipeline.prepare_query(features))
    join, joined = timed(lambda: pipeline.embed_support([[prepared] * shots]))
    match, logits = timed(lambda: pipeline.segment([asked], joined), rounds=1)
    target, iou = dataset.mask(first, 0), IoU()

    def score() -> Any:
        found = geometry.restore(logits[0], *target.shape) > 0
        return iou.measure(stack_padded([found], 0), stack_padded([target], 255))

    counting, _ = timed(score)

    def size(value: Any) -> float:
        return sum(each.numel() * each.element_size() for each in tensors(value)) / 2**20

    return Profile(
        load=load, encode=encode, support=support, query=query, join=join, match=match,
        score=counting, megabytes=(size(features), size(prepared), size(asked)),
    )  # fmt: skip
