"""A plugin of tests: small images of two sizes whose discs have an ignored rim, and more."""

from __future__ import annotations

import hashlib

import attrs
import torch
from torch.nn import functional

from fssbench import (
    Dataset,
    DatasetSpec,
    FeatureRequest,
    FssbenchError,
    Matcher,
    MatcherSpec,
    MetricSpec,
    ProtocolSpec,
)

NAME = __name__
SIZES = ((40, 56), (64, 36))


def fssbench_datasets():
    return [
        DatasetSpec(name="rings", summary="discs with an ignored rim", factory=f"{NAME}:Rings",
                    config=f"{NAME}:RingsConfig")
    ]  # fmt: skip


def fssbench_protocols():
    kinds = {"v1": ("original", "ignore"), "input": ("input", "ignore"),
             "void": ("original", "background")}  # fmt: skip
    return [
        ProtocolSpec(
            name=f"rings/{name}", summary="for tests", dataset="rings", split="val",
            sampler="class-balanced", episodes=30, min_pixels=1, score_size=size, void=void,
        )
        for name, (size, void) in kinds.items()
    ]  # fmt: skip


def fssbench_matchers():
    return [
        MatcherSpec(name="nothing", summary="finds nothing", factory=f"{NAME}:Nothing"),
        MatcherSpec(name="greyest", summary="thresholds; has a weight", factory=f"{NAME}:Greyest",
                    config=f"{NAME}:GreyestConfig"),
    ]  # fmt: skip


def fssbench_metrics():
    return [MetricSpec(name="covered", summary="predicted pixels", factory=f"{NAME}:Covered")]


@attrs.frozen(kw_only=True)
class RingsConfig:
    shift: int = 0


class Rings(Dataset):
    name = "rings"
    classes = ("dark", "bright")
    splits = ("val",)

    def __init__(self, *, root, config):
        self.shift = config.shift

    def fold_classes(self, fold):
        self.check_fold(fold)
        return (0, 1)

    def image_ids(self, split):
        self.check_split(split)
        return [f"{number:02d}" for number in range(16)]

    def class_pixels(self, image_id):
        class_id = int(image_id) % 2
        return {class_id: int((self.mask(image_id, class_id) == 1).sum())}

    def image(self, image_id):
        number = int(image_id)
        generator = torch.Generator().manual_seed(number)
        height, width = SIZES[number // 2 % 2]
        noise = torch.randint(90, 150, (3, height, width), generator=generator)
        inside = self.mask(image_id, number % 2) == 1
        return torch.where(inside, noise + (100 if number % 2 else -80), noise).to(torch.uint8)

    def mask(self, image_id, class_id):
        number = int(image_id)
        height, width = SIZES[number // 2 % 2]
        down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        away = (down - 16 - self.shift) ** 2 + (right - 14 - number) ** 2
        mask = ((away < 100) & (number % 2 == class_id)).to(torch.uint8)
        mask[(away >= 100) & (away < 169)] = 255
        return mask

    def fingerprint(self, split="val"):
        return hashlib.sha256(f"rings {self.shift} {split}".encode()).hexdigest()


class Nothing(Matcher):
    def request(self):
        return FeatureRequest(layers=("cells4",), size=64)

    def embed_support(self, support):
        return None

    def segment(self, query, support):
        return query["cells4"].mean(1) * 0 - 1


@attrs.frozen(kw_only=True)
class GreyestConfig:
    resize: str = "squash"
    fail_after: int = -1


class Greyest(Matcher):
    """Where a query is as bright as the support's object; the weight moves the threshold."""

    calls = 0

    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        self.threshold = torch.nn.Parameter(torch.tensor([0.15]))

    def request(self):
        return FeatureRequest(layers=("cells4",), size=64, resize=self.config.resize)

    def embed_support(self, support):
        features, masks = support.features, support.masks
        share = functional.avg_pool2d((masks == 1).flatten(0, 1).float()[:, None], 4)
        share = share.unflatten(0, masks.shape[:2])
        level = features["cells4"].mean(2, keepdim=True)
        return (level * share).sum((1, 2, 3, 4)) / share.sum((1, 2, 3, 4)).clamp(min=1e-6)

    def segment(self, query, support):
        self.calls += 1
        if self.calls - 1 == self.config.fail_after:
            raise FssbenchError("failed on purpose")
        level = query["cells4"].mean(1)
        return self.threshold - (level - support[:, None, None]).abs()


class Covered:
    """Mean share of an image's pixels that are predicted, in percent."""

    columns = ("covered",)

    def measure(self, prediction, target):
        valid = target != 255
        return {"covered": (prediction & valid).sum((1, 2)) / valid.sum((1, 2)).double()}

    def summarise(self, rows, classes=None):
        return {"covered": 100 * float(rows["covered"].mean())}
