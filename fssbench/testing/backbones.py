"""Checks of the backbone interface; see `fssbench.Backbone`."""

from __future__ import annotations

import copy
import math
from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn import functional

from fssbench import build, registry
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.describe import describe
from fssbench.errors import FssbenchError, one_line
from fssbench.specs import BackboneSpec
from fssbench.testing.check import Checks, expect
from fssbench.testing.random_state import Watch, place_generators
from fssbench.testing.synthetic import picture

LEAST = 64
"""Least side of the images that are encoded, in pixels."""

TOLERANCE = 1e-3
"""Tolerance for the order of summation, relative to the largest value of a layer."""

SOURCES = ("pretrained", "random", "file", "none")

CHECKS = Checks("backbone")


@attrs.frozen(kw_only=True, eq=False, slots=False)
class BackboneSubject:
    """A registered backbone.

    Attributes:
        name: the registered name.
        weights: ``random``, ``pretrained`` or a file; "" for random ones, or its own if it has no
            random ones.
    """

    name: str
    weights: str = ""

    @cached_property
    def spec(self) -> BackboneSpec:
        """Spec of the backbone."""
        return registry.registry().get(BackboneSpec, self.name)

    @cached_property
    def thing(self) -> Any:
        """Class of the backbone, or the function that creates it."""
        return registry.load(self.spec)

    def made(self) -> Backbone:
        """Return a new backbone."""
        if self.weights:
            return build.backbone(self.name, self.weights)
        try:
            return build.backbone(self.name, "random")
        except FssbenchError:
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

    def encoded(self, images: Tensor, backbone: Backbone | None = None) -> dict[str, Tensor]:
        """Return all layers of some images."""
        made = backbone or self.backbone
        with torch.no_grad():
            found: dict[str, Tensor] = made(images, list(made.info.layers))
        return found


@CHECKS.add("__init__")
def description(subject: BackboneSubject) -> str:
    """`info`, `mean`, `std` and `weights` say what the encoder is, also without weights."""
    backbone, info = subject.backbone, subject.backbone.info
    expect(info.name == subject.spec.name, f"info.name is {subject.spec.name!r}", f"{info.name!r}")
    expect(bool(info.layers), "at least one layer in info.layers", "none")
    expect(
        info.multiple >= 1 and info.image_size % info.multiple == 0,
        "an image_size that is a multiple of `multiple`",
        f"image_size={info.image_size}, multiple={info.multiple}",
    )
    for name in ("mean", "std"):
        found = getattr(backbone, name, None)
        expect(
            isinstance(found, Tensor) and found.numel() == 3,
            f"`{name}`: a tensor of three colours",
            f"{found!r}",
        )
    plain = describe(subject.spec)
    expect(
        plain == info,
        'the same info from weights="none" on the meta device, which is how layers are listed',
        f"{plain}",
    )
    weights = backbone.weights
    expect(weights.source in SOURCES, f"weights.source is one of {', '.join(SOURCES)}",
           f"{weights.source!r}")  # fmt: skip
    expect(
        "/" not in weights.name and "\\" not in weights.name,
        "weights.name without its folder: a record with a path does not verify",
        f"{weights.name!r}",
    )
    return f"{len(info.layers)} layers, {info.image_size} px, multiples of {info.multiple}"


@CHECKS.add("forward")
def layers(subject: BackboneSubject) -> str:
    """Each layer has its channels and its stride, and no others are given than asked for."""
    info, side = subject.backbone.info, subject.side
    found = subject.encoded(subject.images(2))
    for name, layer in info.layers.items():
        maps = found[name]
        sizes = {math.floor(side / layer.stride), math.ceil(side / layer.stride)}
        expect(
            maps.ndim == 4
            and tuple(maps.shape[:2]) == (2, layer.channels)
            and set(maps.shape[-2:]) <= sizes,
            f"layer {name}: (2, {layer.channels}, {max(sizes)}, {max(sizes)}) for {side} px",
            f"{tuple(maps.shape)}",
        )
        expect(
            bool(torch.isfinite(maps).all()), f"layer {name}: finite values", "NaN or infinite ones"
        )
        with torch.no_grad():
            alone = subject.backbone(subject.images(2), [name])
        expect(set(alone) == {name}, f"only the layer that is asked for, {name}",
               f"{', '.join(alone)}")  # fmt: skip
        expect(
            _apart(alone[name], maps) <= TOLERANCE,
            f"layer {name}: the same maps alone as with all others",
            f"they differ by {_apart(alone[name], maps):.2g} of the largest value",
        )
    return f"{len(found)} layers of {side} px"


@CHECKS.add("forward")
def before_relu(subject: BackboneSubject) -> str:
    """`name:pre` is a layer before its last ReLU, where `relu` says that it ends in one."""
    ends = [name for name, layer in subject.backbone.info.layers.items() if layer.relu]
    images = subject.images(1)
    found = subject.encoded(images)
    for name in ends:
        with torch.no_grad():
            before = subject.backbone(images, [f"{name}:pre"])[f"{name}:pre"]
        expect(
            _apart(functional.relu(before), found[name]) <= TOLERANCE,
            f"relu of {name}:pre is {name}",
            "something else",
        )
    return f"{len(ends)} of {len(found)} layers end in a ReLU"


@CHECKS.add("forward")
def non_square(subject: BackboneSubject) -> str:
    """Images need not be square."""
    height, width = subject.side, subject.side + subject.backbone.info.multiple
    for name, maps in subject.encoded(subject.images(1, height, width)).items():
        stride = subject.backbone.info.layers[name].stride
        wanted = tuple((math.floor(s / stride), math.ceil(s / stride)) for s in (height, width))
        fits = all(s in around for s, around in zip(maps.shape[-2:], wanted, strict=True))
        expect(
            fits,
            f"layer {name}: about {wanted[0][1]} x {wanted[1][1]} places of {height} x {width} px",
            f"{tuple(maps.shape[-2:])}",
        )
    return f"{height} x {width} px"


@CHECKS.add("forward")
def wrong_requests(subject: BackboneSubject) -> str:
    """An unknown layer, or a side that is no multiple, is an FssbenchError (`info.check`)."""
    backbone, notes = subject.backbone, []
    requests = [(subject.images(1), "no such layer", "an unknown layer")]
    if backbone.info.multiple > 1:
        odd = subject.images(1, subject.side + 1, subject.side + 1)
        requests.append((odd, backbone.info.last_layer, f"images of {subject.side + 1} px"))
    for images, layer, what in requests:
        try:
            with torch.no_grad():
                backbone(images, [layer])
        except FssbenchError:
            notes.append(what)
            continue
        except Exception as error:
            expect(False, f"an FssbenchError for {what}", one_line(error))
        expect(False, f"an FssbenchError for {what}", "maps")
    return f"refuses {' and '.join(notes)}"


@CHECKS.add("__init__")
def frozen(subject: BackboneSubject) -> str:
    """No parameter wants a gradient, and `train()` does not leave eval mode (`freeze`)."""
    backbone = subject.made()
    wanting = [name for name, p in backbone.named_parameters() if p.requires_grad]
    expect(not wanting, "parameters without gradients; end the constructor with `self.freeze()`",
           f"{len(wanting)} with, {wanting[:1]}")  # fmt: skip
    backbone.train()
    training = [name for name, module in backbone.named_modules() if module.training]
    expect(not training, "eval mode, whatever is called", f"{len(training)} modules in training "
           "mode after train()")  # fmt: skip
    return f"{sum(p.numel() for p in backbone.parameters()):,} frozen parameters"


@CHECKS.add("forward")
def batch(subject: BackboneSubject) -> str:
    """An image's features are the same alone and in a batch of three."""
    images = subject.images(3)
    together, worst = subject.encoded(images), 0.0
    for n in range(3):
        for name, maps in subject.encoded(images[n : n + 1]).items():
            apart = _apart(maps[0], together[name][n])
            expect(
                apart <= TOLERANCE,
                f"layer {name}: the same features in a batch of 1 and of 3",
                f"they differ by {apart:.2g} of the largest value",
            )
            worst = max(worst, apart)
    return f"largest difference {worst:.1g} of the largest value"


@CHECKS.add("__init__", "forward")
def determinism(subject: BackboneSubject) -> str:
    """Random weights are the same each time, and features the same bit for bit."""
    images, found = subject.images(1), []
    for number in (1, 2):
        place_generators(number)
        found.append(subject.encoded(images, subject.made()))
    for name, maps in found[0].items():
        expect(
            torch.equal(maps, found[1][name]),
            f"layer {name}: the same features from another object; random weights are drawn with "
            "a seed of their own",
            f"they differ by {_apart(found[1][name], maps):.2g} of the largest value",
        )
    return "features are the same bit for bit"


@CHECKS.add("__init__", "forward")
def generators(subject: BackboneSubject) -> str:
    """Making and using an encoder leaves the generators of the process alone."""
    watch = Watch()
    subject.encoded(subject.images(1), subject.made())
    expect(
        not watch.moved(),
        "random, numpy.random and torch stay where they are; draw weights in torch.random.fork_rng",
        f"{watch.moved()} changed",
    )
    return "random, numpy.random and torch stay where they are"


@CHECKS.add("__init__", "forward")
def devices(subject: BackboneSubject) -> str:
    """The encoder computes on the device that it was moved to."""
    images = subject.images(1)
    notes = []
    for kind in ("meta", *(("cuda",) if torch.cuda.is_available() else ())):
        moved = copy.deepcopy(subject.backbone).to(kind)
        for name, maps in subject.encoded(images.to(kind), moved).items():
            expect(
                maps.device.type == kind,
                f"layer {name} on the device of the images, {kind}",
                f"on {maps.device}",
            )
        notes.append(kind)
    return ", ".join(notes)


def _apart(one: Tensor, other: Tensor) -> float:
    """Return the largest difference, relative to the largest value of `other`."""
    if one.shape != other.shape:
        return math.inf
    return float((one - other).abs().max()) / max(float(other.abs().max()), 1e-6)
