"""Checks of the backbone interface; see `fssbench.Backbone`."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property, partial

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench import build
from fssbench.backbones.backbone import Backbone
from fssbench.build import describe
from fssbench.errors import FssbenchError
from fssbench.runtime.random_state import drawn_twice
from fssbench.specs import BackboneSpec
from fssbench.testing.check import (
    Checks,
    Subject,
    expect,
    expect_close,
    expect_error,
    expect_tensor,
    expect_unchanged_generators,
)
from fssbench.testing.synthetic import picture

LEAST = 64
"""Least side of the images that are encoded, in pixels."""

SOURCES = ("pretrained", "random", "file", "none")

CHECKS = Checks("backbone")


@attrs.frozen(kw_only=True, eq=False, slots=False)
class BackboneSubject(Subject):
    """A registered backbone.

    Attributes:
        weights: ``random``, ``pretrained`` or a file; "" for random ones, or pretrained ones if it
            has no random ones.
    """

    spec_class = BackboneSpec
    weights: str = ""

    def made(self) -> Backbone:
        """Return a new backbone."""
        try:
            return build.backbone(self.name, self.weights or "random")
        except FssbenchError:
            if self.weights:
                raise
            return build.backbone(self.name, "pretrained")

    @cached_property
    def backbone(self) -> Backbone:
        """Backbone shared by all checks that need no new one."""
        return self.made()

    @cached_property
    def side(self) -> int:
        """Smallest multiple that is at least `LEAST`."""
        multiple = self.backbone.info.multiple
        return math.ceil(LEAST / multiple) * multiple

    def images(self, count: int, height: int = 0, width: int = 0) -> Tensor:
        """Return float (count, 3, H, W) in [0, 1]."""
        shape = height or self.side, width or self.side
        return torch.stack([picture(n, *shape).image for n in range(count)]).float() / 255

    def encoded(
        self, images: Tensor, backbone: Backbone | None = None, names: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Return named layers of images, by default all."""
        with torch.no_grad():
            found: dict[str, Tensor] = (backbone or self.backbone)(
                images, list(names or self.backbone.info.layers)
            )
        return found


@CHECKS.add("__init__")
def description(subject: BackboneSubject) -> str:
    """`info`, `mean`, `std` and `weights` are valid; `info` does not depend on weights."""
    backbone, info = subject.backbone, subject.backbone.info
    expect(info.name == subject.spec.name, f"info.name is {subject.spec.name!r}", f"{info.name!r}")
    expect(bool(info.layers), "at least one layer in info.layers", "none")
    divisible = info.multiple >= 1 and info.image_size % info.multiple == 0
    sizes = f"image_size={info.image_size}, multiple={info.multiple}"
    expect(divisible, "an image_size that is a multiple of `multiple`", sizes)
    for name in ("mean", "std"):
        found = getattr(backbone, name, None)
        valid = isinstance(found, Tensor) and found.numel() == 3
        expect(valid, f"`{name}`: a tensor of three channels", f"{found!r}")
    plain = describe(subject.spec)
    expect(plain == info, 'the same info from weights="none", used to list layers', f"{plain}")
    weights = backbone.weights
    expect(weights.source in SOURCES, f"weights.source is one of {', '.join(SOURCES)}",
           f"{weights.source!r}")  # fmt: skip
    bare = not set("/\\") & set(weights.name)
    expect(bare, "weights.name without a folder: records must not hold paths", weights.name)
    return f"{len(info.layers)} layers, {info.image_size} px, multiples of {info.multiple}"


@CHECKS.add("forward")
def layers(subject: BackboneSubject) -> str:
    """Layers have the declared channels and strides, and only requested ones are returned."""
    info, side = subject.backbone.info, subject.side
    images = subject.images(2)
    found = subject.encoded(images)
    for name, layer in info.layers.items():
        maps = found[name]
        sizes = {math.floor(side / layer.stride), math.ceil(side / layer.stride)}
        valid = maps.ndim == 4 and maps.shape[:2] == (2, layer.channels)
        expected = f"layer {name}: (2, {layer.channels}, {max(sizes)}, {max(sizes)}) for {side} px"
        expect_tensor(maps, valid and set(maps.shape[-2:]) <= sizes, expected)
        finite = bool(torch.isfinite(maps).all())
        expect(finite, f"layer {name}: finite values", "NaN or infinite ones")
        alone = subject.encoded(images, names=[name])
        expect(set(alone) == {name}, f"only the requested layer, {name}", f"{', '.join(alone)}")
        expect_close(alone[name], maps, f"layer {name}: the same maps alone as with all others")
    return f"{len(found)} layers of {side} px"


@CHECKS.add("forward")
def before_relu(subject: BackboneSubject) -> str:
    """`name:pre` is the input of the last ReLU of a layer, if `relu` is set."""
    ends = [name for name, layer in subject.backbone.info.layers.items() if layer.relu]
    images = subject.images(1)
    found = subject.encoded(images)
    for name in ends:
        before = subject.encoded(images, names=[f"{name}:pre"])[f"{name}:pre"]
        expect_close(functional.relu(before), found[name], f"relu of {name}:pre is {name}")
    return f"{len(ends)} of {len(found)} layers end in a ReLU"


@CHECKS.add("forward")
def non_square(subject: BackboneSubject) -> str:
    """Images of any aspect ratio are encoded."""
    height, width = subject.side, subject.side + subject.backbone.info.multiple
    for name, maps in subject.encoded(subject.images(1, height, width)).items():
        stride = subject.backbone.info.layers[name].stride
        wanted = height / stride, width / stride
        near = all(abs(a - b) < 1 for a, b in zip(maps.shape[-2:], wanted, strict=True))
        cells = f"about {wanted[0]:g} x {wanted[1]:g} cells for {height} x {width} px"
        expect(near, f"layer {name}: {cells}", f"{tuple(maps.shape[-2:])}")
    return f"{height} x {width} px"


@CHECKS.add("forward")
def wrong_requests(subject: BackboneSubject) -> str:
    """An unknown layer, or a side that is not a multiple, is an FssbenchError (`info.check`)."""
    backbone = subject.backbone
    requests = [(subject.images(1), "no such layer", "an unknown layer")]
    if backbone.info.multiple > 1:
        odd = subject.images(1, subject.side + 1, subject.side + 1)
        requests.append((odd, backbone.info.last_layer, f"images of {subject.side + 1} px"))
    for images, layer, what in requests:
        expect_error(partial(subject.encoded, images, names=[layer]), what)
    return f"refuses {' and '.join(what for *_, what in requests)}"


@CHECKS.add("__init__")
def frozen(subject: BackboneSubject) -> str:
    """No parameter requires a gradient, and `train()` does not leave eval mode (`freeze`)."""
    backbone = subject.made()
    wanting = [name for name, p in backbone.named_parameters() if p.requires_grad]
    expect(not wanting, "parameters without gradients; end the constructor with `self.freeze()`",
           f"{len(wanting)} with, {wanting[:1]}")  # fmt: skip
    backbone.train()
    training = [name for name, module in backbone.named_modules() if module.training]
    expect(not training, "eval mode after train()", f"{len(training)} modules in training mode")
    return f"{sum(p.numel() for p in backbone.parameters()):,} frozen parameters"


@CHECKS.add("forward")
def batch(subject: BackboneSubject) -> str:
    """An image's features are the same alone and in a batch of three."""
    images = subject.images(3)
    together, worst = subject.encoded(images), 0.0
    for n in range(3):
        for name, maps in subject.encoded(images[n : n + 1]).items():
            expected = f"layer {name}: the same features in a batch of 1 and of 3"
            worst = max(worst, expect_close(maps[0], together[name][n], expected))
    return f"largest difference {worst:.1g} of the largest value"


@CHECKS.add("__init__", "forward")
def determinism(subject: BackboneSubject) -> str:
    """Random weights are always the same, and features equal bit for bit."""
    images = subject.images(1)
    first, second = drawn_twice(lambda: subject.encoded(images, subject.made()))
    for name, maps in first.items():
        expected = f"layer {name}: the same features from a new object; random weights have a seed"
        expect_close(second[name], maps, expected, tolerance=0)
    return "features are the same bit for bit"


@CHECKS.add("__init__", "forward")
def generators(subject: BackboneSubject) -> str:
    """Creating and using an encoder does not use the global random generators."""
    with expect_unchanged_generators("; draw weights in torch.random.fork_rng"):
        subject.encoded(subject.images(1), subject.made())
    return "random, numpy.random and torch are unchanged"


@CHECKS.add("__init__", "forward")
def devices(subject: BackboneSubject) -> str:
    """The encoder runs on the device that it was moved to."""
    images = subject.images(1)
    notes = []
    for kind in ("meta", *(("cuda",) if torch.cuda.is_available() else ())):
        moved = copy.deepcopy(subject.backbone).to(kind)
        for name, maps in subject.encoded(images.to(kind), moved).items():
            there = maps.device.type == kind
            expect(there, f"layer {name} on the device of the images, {kind}", f"{maps.device}")
        notes.append(kind)
    return ", ".join(notes)
