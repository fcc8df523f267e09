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
from fssbench.nn import tensors
from fssbench.nn.flops import flop_counter
from fssbench.runtime.device import choose_device

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
        build.matcher(matcher, encoder), encoder, device=choose_device(device), precision=precision
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


@attrs.frozen(kw_only=True)
class Peak:
    """Peak rates of this machine, each of one CPU second.

    Attributes:
        flops: floating point operations of a float32 matrix product.
        bytes: bytes that a copy reads and writes.
    """

    flops: float
    bytes: float

    @classmethod
    def measured(cls) -> Peak:
        """Measure a product of matrices of 1024 x 1024 and a copy of 256 MiB, best of 10."""
        square, long = torch.rand(1024, 1024), torch.rand(1 << 26)
        other = torch.empty_like(long)
        product = min(_cpu_seconds(lambda: square @ square)[0] for _ in range(10))
        copy = min(_cpu_seconds(lambda: other.copy_(long))[0] for _ in range(10))
        return cls(flops=2 * 1024**3 / product, bytes=2 * long.nbytes / copy)


def timed(call: Callable[[], Any], rounds: int = 2) -> tuple[float, float, Any]:
    """Return median CPU seconds, operations and the last result; the first call only counts."""
    with flop_counter() as counted:
        result = call()
    times = []
    for _ in range(rounds):
        seconds, result = _cpu_seconds(call)
        times.append(seconds)
    return statistics.median(times), counted.get_total_flops(), result


def _cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    start = Clock.now()
    result = call()
    return (Clock.now() - start).cpu, result


@attrs.frozen(kw_only=True)
class Profile:
    """CPU seconds of the parts of an episode, measured or the least that is possible.

    Attributes:
        load: decoding and resizing one image and its mask.
        encode: one image through the backbone.
        support: what is made of one support image.
        query: what is made of one query image.
        join: K supports together.
        match: logits of a prepared query and joined supports.
        score: logits to the image's size, and counting.
    """

    load: float
    encode: float
    support: float
    query: float
    join: float
    match: float
    score: float

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


PARTS = tuple(field.name for field in attrs.fields(Profile))


def profile(
    pipeline: Pipeline, dataset: Any, shots: int, peak: Peak
) -> tuple[Profile, Profile, tuple[float, float, float]]:
    """Measure the parts one by one.

    Returns:
        The seconds; the floors; and the MiB of one image's features, of a prepared support and of a
        prepared query. The floor of a part is its operations at the peak rate, or its arguments and
        results at the rate of a copy, whichever is more. Operations are those of matrix products,
        convolutions, attention and scans: an exponential counts as nothing. `load` and `score` are
        the work of libraries, and their floors are their times.
    """
    geometry, (first, *_) = pipeline.geometry, dataset.image_ids("val")
    times, floors = {}, {}

    def part(name: str, call: Callable[[], Any], *arguments: Any, rounds: int = 2) -> Any:
        times[name], flops, result = timed(call, rounds)
        moved = _bytes(arguments) + _bytes(result)
        counted = max(flops / peak.flops, moved / peak.bytes)
        floors[name] = times[name] if name in ("load", "score") else counted
        return result

    image, mask = part(
        "load",
        lambda: (geometry.image(dataset.image(first)), geometry.mask(dataset.mask(first, 0))),
    )
    keep = [mask] if pipeline.request.mask_support else None
    (features,) = part("encode", lambda: pipeline.encode(image[None], keep), image)
    support = part("support", lambda: pipeline.prepare_support(features, mask), features)
    query = part("query", lambda: pipeline.prepare_query(features), features)
    joined = part("join", lambda: pipeline.embed_support([[support] * shots]), [support] * shots)
    logits = part("match", lambda: pipeline.segment([query], joined), query, joined, rounds=1)
    target, iou = dataset.mask(first, 0), IoU()

    def score() -> Any:
        found = geometry.restore(logits[0], *target.shape) > 0
        return iou.measure(stack_padded([found], 0), stack_padded([target], 255))

    part("score", score)
    sizes = (_bytes(features) / 2**20, _bytes(support) / 2**20, _bytes(query) / 2**20)
    return Profile(**times), Profile(**floors), sizes


def _bytes(value: Any) -> int:
    return sum(tensor.nbytes for tensor in tensors(value))
