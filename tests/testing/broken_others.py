"""A plugin of datasets, backbones, metrics, samplers, protocols that each violate one check."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import attrs
import numpy
import torch
from methods_for_tests import Pixels
from torch import nn

from fssbench import (
    BackboneSpec,
    Dataset,
    DatasetSpec,
    Episode,
    FssbenchError,
    LayerInfo,
    MetricSpec,
    ProtocolSpec,
    SamplerSpec,
)
from fssbench.episodes.sampler import class_balanced
from fssbench.metrics.iou import IoU


def fssbench_datasets():
    return [
        DatasetSpec(name=cls.name, summary=cls.__name__, factory=f"broken_others:{cls.__name__}")
        for cls in (Squares, *Squares.__subclasses__())
    ]


def fssbench_backbones():
    return [
        BackboneSpec(
            name=cls.__name__.lower(), summary="one", factory=f"broken_others:{cls.__name__}"
        )
        for cls in (Encoder, *Encoder.__subclasses__())
    ]


def fssbench_metrics():
    return [
        MetricSpec(
            name=cls.__name__.lower(), summary="one", factory=f"broken_others:{cls.__name__}"
        )
        for cls in (Area, *Area.__subclasses__())
    ]


def fssbench_samplers():
    return [
        SamplerSpec(name=name, summary="one", factory=f"broken_others:{name}") for name in SAMPLERS
    ]


def fssbench_protocols():
    return [
        ProtocolSpec(
            name=name, summary="one", dataset="squares", split="val", episodes=6, min_pixels=pixels,
            sampler=sampler,
        )
        for name, pixels, sampler in (
            ("squares/fine", 1, "class-balanced"),
            ("squares/nowhere", 1, "no-such-sampler"),
            ("squares/huge", 10_000, "class-balanced"),
            ("squares/chance", 1, "chance"),
        )
    ]  # fmt: skip


# --- datasets -------------------------------------------------------------------------------------


class Squares(Dataset):
    name = "squares"
    classes = ("small", "large")
    splits = ("val",)

    def __init__(self, *, root, config):
        pass

    def fold_classes(self, fold):
        self.check_fold(fold)
        return (0, 1)

    def image_ids(self, split):
        self.check_split(split)
        return [f"{name}-{n}" for name in self.classes for n in range(3)]

    def class_pixels(self, image_id):
        class_id = self.classes.index(image_id.partition("-")[0])
        return {class_id: int((self.mask(image_id, class_id) == 1).sum())}

    def image(self, image_id):
        if image_id not in self.image_ids("val"):
            raise FssbenchError(f"{self.name} has no image {image_id!r}")
        class_id = self.classes.index(image_id.partition("-")[0])
        return (255 * self.mask(image_id, class_id)).expand(3, -1, -1)

    def mask(self, image_id, class_id):
        mask = torch.zeros(32, 40, dtype=torch.uint8)
        if image_id.partition("-")[0] == self.classes[class_id]:
            mask[4 : 12 + 8 * class_id, 4:12] = 1
        return mask

    def fingerprint(self, split="val"):
        self.check_split(split)
        return hashlib.sha256(b"squares").hexdigest()


class Misnamed(Squares):
    name = "misnamed"
    classes = ("small", "small")


class Endless(Squares):
    name = "endless"

    def fold_classes(self, fold):
        return (0, 1)


class Shuffled(Squares):
    name = "shuffled"

    def image_ids(self, split):
        ids = super().image_ids(split)
        return random.Random().sample(ids, len(ids))


class Valued(Squares):
    name = "valued"

    def mask(self, image_id, class_id):
        return 200 * super().mask(image_id, class_id)

    def class_pixels(self, image_id):
        return {}


class Uncounted(Squares):
    name = "uncounted"

    def class_pixels(self, image_id):
        return dict.fromkeys(super().class_pixels(image_id), 7)


class Anything(Squares):
    name = "anything"

    def image(self, image_id):
        return torch.zeros(3, 32, 40, dtype=torch.uint8)


class Fleeting(Squares):
    name = "fleeting"

    def fingerprint(self, split="val"):
        self.check_split(split)
        return hashlib.sha256(str(id(self)).encode()).hexdigest()


class Noisy(Squares):
    name = "noisy"

    def image(self, image_id):
        super().image(image_id)
        return torch.randint(255, (3, 32, 40)).to(torch.uint8)


class Local(Squares):
    name = "local"

    def __init__(self, *, root, config):
        self.paint = lambda: None


# --- backbones ------------------------------------------------------------------------------------


class Encoder(Pixels):
    """Passes all checks."""

    def __init__(self, weights):
        super().__init__(weights)
        self.info = attrs.evolve(self.info, name=type(self).__name__.lower())
        self.register_buffer("std", torch.ones(3, 1, 1), persistent=False)
        self.mean = self.mean.flatten().new_full((3, 1, 1), 0.5)

    def forward(self, images, layers):
        self.info.check(images, layers)
        return super().forward(images, layers)


class Elsewhere(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        self.weights = attrs.evolve(self.weights, name="/home/me/weights.pth")


class Strided(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        layers = {"cells4": LayerInfo(3, 4), "cells8": LayerInfo(3, 16)}
        self.info = attrs.evolve(self.info, layers=layers)

    def forward(self, images, layers):
        return Pixels.forward(self, images, ["cells4"]) | {
            name: nn.functional.avg_pool2d(images, 8) for name in layers if name != "cells4"
        }


class Rectified(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        self.info = attrs.evolve(self.info, layers={"cells4": LayerInfo(3, 4, relu=True)})

    def forward(self, images, layers):
        return {name: nn.functional.avg_pool2d(images, 4) - 0.5 for name in layers}


class Squared(Encoder):
    def forward(self, images, layers):
        found = super().forward(images, layers)
        side = min(images.shape[-2:])
        return {n: m[:, :, :, : side // self.info.layer(n).stride] for n, m in found.items()}


class Lenient(Encoder):
    def forward(self, images, layers):
        return {name: nn.functional.avg_pool2d(images, 4) for name in layers}


class Warm(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        self.scale = nn.Parameter(torch.ones(()))


class Standing(Encoder):
    def forward(self, images, layers):
        return {n: maps - maps.mean(0) for n, maps in super().forward(images, layers).items()}


class Fickle(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        self.register_buffer("shift", torch.tensor(float(numpy.random.default_rng().normal())))

    def forward(self, images, layers):
        return {n: maps + self.shift for n, maps in super().forward(images, layers).items()}


class Seeded(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        torch.manual_seed(0)


class Tied(Encoder):
    def __init__(self, weights):
        super().__init__(weights)
        self.grey = torch.full((3, 1, 1), 0.5)

    def forward(self, images, layers):
        return {n: maps * self.grey for n, maps in super().forward(images, layers).items()}


# --- metrics --------------------------------------------------------------------------------------


class Area(IoU):
    """Passes all checks."""


class Short(Area):
    def measure(self, prediction, target):
        found = super().measure(prediction, target)
        return {name: values.int() for name, values in found.items()}


class Relative(Area):
    def measure(self, prediction, target):
        found = super().measure(prediction, target)
        return {name: values - values.min() for name, values in found.items()}


class Careless(Area):
    def measure(self, prediction, target):
        return super().measure(prediction, target.clamp(max=1))


class Ratio(Area):
    columns = ("iou",)

    def measure(self, prediction, target):
        found = super().measure(prediction, target)
        return {"iou": found["intersection_fg"].double() / found["union_fg"]}

    def summarise(self, rows, classes=None):
        return {"iou": float(rows["iou"].mean())}


class Constant(Area):
    columns = ("labelled",)

    def measure(self, prediction, target):
        return {"labelled": (target != 255).sum((1, 2))}

    def summarise(self, rows, classes=None):
        return {"labelled": float(rows["labelled"].mean())}


class Changing(Area):
    def measure(self, prediction, target):
        target[target == 255] = 0
        return super().measure(prediction, target)


class Ordered(Area):
    def summarise(self, rows, classes=None):
        return {**super().summarise(rows, classes), "first": float(rows.iloc[0]["union_fg"])}


class Tolerant(Area):
    def summarise(self, rows, classes=None):
        return super().summarise(rows)


# --- samplers -------------------------------------------------------------------------------------


def fair(pool, *, episodes, shots, draw):
    return class_balanced(pool, episodes=episodes, shots=shots, draw=draw)


def single(pool, *, episodes, shots, draw):
    return class_balanced(pool, episodes=episodes, shots=1, draw=draw)


def echoing(pool, *, episodes, shots, draw):
    made = class_balanced(pool, episodes=episodes, shots=shots, draw=draw)
    return [attrs.evolve(e, support=(e.query,) * shots) for e in made]


def opening(pool, *, episodes, shots, draw):
    made = class_balanced(pool, episodes=episodes, shots=shots, draw=draw)
    pool.dataset.image(made[0].query)
    return made


def partial(pool, *, episodes, shots, draw):
    made = class_balanced(pool, episodes=4 * episodes, shots=shots, draw=draw)
    (common, _), *_ = Counter(e.class_id for e in made).most_common(1)
    own = [e for e in made if e.class_id == common]
    return [attrs.evolve(own[n % len(own)], index=n) for n in range(episodes)]


def chance(pool, *, episodes, shots, draw):
    dice = random.Random()
    made = []
    for index in range(episodes):
        class_id = sorted(pool.lists)[index % len(pool.lists)]
        query, *support = dice.sample(list(pool.lists[class_id]), shots + 1)
        made.append(Episode(index=index, class_id=class_id, query=query, support=tuple(support)))
    return made


def seeding(pool, *, episodes, shots, draw):
    random.seed(0)
    return class_balanced(pool, episodes=episodes, shots=shots, draw=draw)


def sorting(pool, *, episodes, shots, draw):
    made = class_balanced(pool, episodes=episodes, shots=shots, draw=draw)
    for images in pool.lists.values():
        images.reverse()
    return made


SAMPLERS = (
    "fair", "single", "echoing", "opening", "partial", "chance", "seeding", "sorting",
)  # fmt: skip
