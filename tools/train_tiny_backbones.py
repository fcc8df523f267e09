"""Train the two encoders whose weights ship with fssbench, and evaluate them on `shapes`.

    python tools/train_tiny_backbones.py tiny-resnet --minutes 28
    python tools/train_tiny_backbones.py tiny-vit --minutes 25
    python tools/train_tiny_backbones.py tiny-resnet --evaluate-only --episodes 50

Training scenes are similar to those of `shapes`, but contain procedural silhouettes only. A
generated silhouette that resembles a class of the benchmark in any pose is rejected, and the
clutter differs. So all 20 classes are novel to the encoder.

Each trained layer has three losses: classification of the silhouette of every cell and of every
object (by a linear head that is discarded), and matching of prototypes among the images of a batch,
as in a training-free few-shot matcher. The ResNet is trained on flat colours without clutter first,
so that outlines are learned in minutes. The transformer is initialised with the ResNet's first
half, is distilled from its third stage, and is trained on crops for most of the time.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional

from fssbench.backbones.tiny import TinyResNet, tiny_vit
from fssbench.data.shapes.bits import Bits
from fssbench.data.shapes.scenes import fragments, lay_out, paint
from fssbench.data.shapes.shapes import Shapes
from fssbench.data.shapes.silhouettes import CELLS, SILHOUETTES, Template, silhouette

log = logging.getLogger("train_tiny_backbones")

WEIGHTS = Path(__file__).parents[1] / "fssbench" / "backbones" / "weights_shipped"
LAYERS = {
    "tiny-resnet": ("layer3", "layer4"),
    "tiny-vit": ("blocks.2", "norm"),
}
TAUGHT = "layer3"  # of tiny-resnet
WEIGHTS_OF_LOSSES = {"cells": 0.3, "objects": 0.3, "match": 1.0, "follow": 1.0}
OBJECTIVES = {
    "tiny-resnet": "classification of cells and objects, and prototype matching, on layer3 and "
    "layer4",
    "tiny-vit": "classification of cells and objects, and prototype matching, on blocks.2 and "
    "norm; norm also imitates layer3 of tiny-resnet, whose first half the patch embedding "
    "started from",
}
RATES = {"tiny-resnet": 2e-3, "tiny-vit": 1e-3}
_GRID = (np.arange(CELLS) + 0.5) / (CELLS // 2) - 1.0
_X, _Y = np.meshgrid(_GRID, _GRID)


@attrs.frozen(kw_only=True)
class Plan:
    """Settings of a training.

    Attributes:
        minutes: wall-clock budget; the learning rate decays to zero at its end.
        rate: peak learning rate of AdamW.
        seed: random seed of the silhouettes, the scenes and the initial weights.
        silhouettes: number of training classes.
        batch: number of images per step and process.
        classes: number of training classes in the images of one batch.
        processes: number of data-parallel processes of one thread each.
    """

    minutes: float
    rate: float
    seed: int = 0
    silhouettes: int = 256
    batch: int = 12
    classes: int = 7
    processes: int = 2


# ---- training silhouettes, which are not in the benchmark ----------------------------------------


def training_silhouettes(count: int, seed: int) -> list[Template]:
    """Generate `count` silhouettes, none of which resembles a class of `shapes`."""
    rng = np.random.default_rng(seed)
    forbidden = np.stack([_thumbnail(t) for n in SILHOUETTES for t in _poses(silhouette(n))])
    made: list[Template] = []
    while len(made) < count:
        kind = _KINDS[rng.integers(len(_KINDS))]
        template = _normalised(kind(rng))
        if template is not None and _similarity(_thumbnail(template), forbidden) < 0.72:
            made.append(template)
    return made


def _radial(rng: np.random.Generator) -> Template:
    """Draw a closed curve r(angle) with a few harmonics; often symmetric."""
    angle, radius = np.arctan2(_Y, _X), np.hypot(_X, _Y)
    fold = int(rng.choice([1, 1, 2, 3, 4, 5, 6, 7]))
    outline = np.ones_like(angle)
    for harmonic in range(1, 4):
        wave = np.cos(fold * harmonic * angle + rng.uniform(0, 2 * np.pi))
        outline += rng.uniform(0.1, 0.7) / harmonic * wave
    if rng.random() < 0.4:
        outline = np.round(outline * 2.0) / 2.0
    return radius * 1.8 < np.maximum(outline, 0.25)


def _primitive(rng: np.random.Generator) -> Template:
    angle, size = rng.uniform(0, np.pi), rng.uniform(0.25, 0.6)
    cx, cy = rng.uniform(-0.4, 0.4, 2)
    u = np.cos(angle) * (_X - cx) + np.sin(angle) * (_Y - cy)
    v = (np.cos(angle) * (_Y - cy) - np.sin(angle) * (_X - cx)) / rng.uniform(0.3, 1.0)
    kind = rng.integers(4)
    shape: Template
    if kind == 0:
        shape = u * u + v * v < size * size
    elif kind == 1:
        shape = np.maximum(abs(u), abs(v)) < size
    elif kind == 2:
        shape = abs(u) + abs(v) < size * 1.3
    else:
        shape = (v > -size) & (2.0 * abs(u) + v < size)
    return shape


def _constructed(rng: np.random.Generator) -> Template:
    """Draw unions and differences of primitives; often mirrored."""
    shape = _primitive(rng)
    for _ in range(rng.integers(1, 4)):
        shape = shape | _primitive(rng)
    for _ in range(rng.integers(0, 3)):
        shape = shape & ~_primitive(rng)
    return shape | shape[:, ::-1] if rng.random() < 0.4 else shape


def _glyph(rng: np.random.Generator) -> Template:
    """Draw thick strokes between the points of a small grid."""
    points = [(x, y) for x in (-0.7, 0.0, 0.7) for y in (-0.7, 0.0, 0.7)]
    path = [points[i] for i in rng.permutation(9)[: rng.integers(3, 6)]]
    width = rng.uniform(0.13, 0.24)
    shape = np.zeros(_X.shape, dtype=np.bool_)
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((_X - x0) * dx + (_Y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        shape |= np.hypot(_X - x0 - along * dx, _Y - y0 - along * dy) < width
    return shape | shape[:, ::-1] if rng.random() < 0.3 else shape


def _jagged(rng: np.random.Generator) -> Template:
    """Draw a polygon around the centre with corners at random radii; often with a hole."""
    corners = int(rng.integers(4, 9))
    start, step = rng.uniform(0, 2 * np.pi), 2 * np.pi / corners
    radii = rng.uniform(0.3, 1.0, corners)
    angle = (np.arctan2(_Y, _X) - start) % (2 * np.pi)
    index = np.minimum((angle / step).astype(int), corners - 1)
    r0, r1 = radii[index], radii[(index + 1) % corners]
    part = angle - index * step
    edge = r0 * r1 * np.sin(step) / (r0 * np.sin(part) + r1 * np.sin(step - part))
    shape: Template = np.hypot(_X, _Y) < edge
    if rng.random() < 0.4:
        shape &= np.hypot(_X, _Y) >= rng.uniform(0.15, 0.3)
    return shape


_KINDS = (_radial, _constructed, _constructed, _glyph, _jagged)


def _normalised(shape: Template) -> Template | None:
    """Return the largest component, scaled to fill the template; None if it is too small."""
    pieces, count = ndimage.label(shape)
    if count == 0:
        return None
    shape = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    rows, columns = np.nonzero(shape.any(1))[0], np.nonzero(shape.any(0))[0]
    side = max(np.ptp(rows), np.ptp(columns)) / CELLS / 0.95
    cy, cx = (rows[0] + rows[-1]) / 2.0, (columns[0] + columns[-1]) / 2.0
    y = np.round(cy + (np.arange(CELLS) - CELLS / 2) * side).astype(int)
    x = np.round(cx + (np.arange(CELLS) - CELLS / 2) * side).astype(int)
    inside = ((y >= 0) & (y < CELLS))[:, None] & ((x >= 0) & (x < CELLS))
    scaled = shape[np.clip(y, 0, CELLS - 1)[:, None], np.clip(x, 0, CELLS - 1)] & inside
    return scaled if 0.15 < scaled.mean() < 0.7 and side > 0.3 else None


def _poses(template: Template) -> Iterator[Template]:
    for flipped in (template, template[:, ::-1]):
        for degrees in range(0, 360, 15):
            yield ndimage.rotate(flipped.astype(np.uint8), degrees, reshape=False, order=0) > 0


def _thumbnail(template: Template) -> NDArray[np.float32]:
    """Return the template at 32 x 32, centred on its centre of mass and scaled to a common area."""
    cy, cx = ndimage.center_of_mass(template)
    scale = math.sqrt(float(template.mean()) / 0.25)
    steps = (np.arange(32) - 15.5) * (CELLS / 32) * scale
    y, x = np.meshgrid(steps + cy, steps + cx, indexing="ij")
    thumbnail = ndimage.map_coordinates(template.astype(np.float32), [y, x], order=0)
    return np.asarray(thumbnail, dtype=np.float32).ravel()


def _similarity(thumbnail: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    both = others @ thumbnail
    return float((both / (others.sum(1) + thumbnail.sum() - both)).max())


# ---- scenes --------------------------------------------------------------------------------------


def batches(
    templates: Sequence[Template], plan: Plan, rank: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches of scenes: uint8 (B, 3, 160, 160) and labels int16 (B, 160, 160)."""
    bits = Bits(high=1 << 62 | plan.seed, low=rank)
    clutter = fragments(seed=1000 + plan.seed, count=256)
    while True:
        chosen: dict[int, None] = {}
        while len(chosen) < plan.classes:
            chosen[bits.below(len(templates))] = None
        table = np.array([0, *(index + 1 for index in chosen)], dtype=np.int16)
        few = [templates[index] for index in chosen]
        scenes = [lay_out(bits, few, clutter) for _ in range(plan.batch)]
        images = np.stack([paint(bits, scene) for scene in scenes])
        labels = np.stack([table[scene.labels] for scene in scenes])
        yield torch.from_numpy(images), torch.from_numpy(labels)


# ---- losses --------------------------------------------------------------------------------------


class Losses(nn.Module):
    """Losses ``cells``, ``objects`` and ``match`` of one layer."""

    def __init__(self, channels: int, silhouettes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.classes = nn.Linear(channels, silhouettes + 1)
        self.match_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses by name.

        Args:
            features: feature maps (B, C, h, w).
            labels: int64 (B, H, W); 0 is background.
        """
        stride = labels.shape[-1] // features.shape[-1]
        raw = features.permute(0, 2, 3, 1).flatten(1, 2).float()  # (B, cells, C)
        cells = functional.normalize(raw, dim=2)
        centres = labels[:, stride // 2 :: stride, stride // 2 :: stride].flatten()
        weights = torch.ones(self.classes.out_features)
        weights[0] = 0.1  # most cells are background
        classify = functional.cross_entropy(
            self.classes(self.norm(raw.flatten(0, 1))), centres, weights
        )

        image, label, masks = _objects(labels, stride)
        shares = masks / masks.sum(1, keepdim=True)
        rests = (1.0 - masks) / (1.0 - masks).sum(1, keepdim=True)
        pooled = torch.einsum("sn,snc->sc", shares, raw[image])
        recognise = functional.cross_entropy(self.classes(self.norm(pooled)), label)
        fore = functional.normalize(pooled, dim=1)
        back = functional.normalize(torch.einsum("sn,snc->sc", rests, raw[image]), dim=1)
        margin = torch.einsum("sc,bnc->sbn", fore - back, cells) * self.match_scale.exp()
        # Object s is the support of each object q of its class in another image.
        s, q = torch.nonzero((label[:, None] == label) & (image[:, None] != image), as_tuple=True)
        logit, target = margin[s, image[q]], masks[q]
        cross = functional.binary_cross_entropy_with_logits(logit, target)
        probability = logit.sigmoid()
        both = (probability * target).sum(1)
        dice = 1.0 - 2.0 * both / (probability.sum(1) + target.sum(1))
        return {"cells": classify, "objects": recognise, "match": cross + dice.mean()}


class Following(nn.Module):
    """Distance between the features of a layer and of a teacher layer, at half the resolution."""

    def __init__(self, channels: int, taught: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(taught, affine=False)
        self.guess = nn.Linear(channels, taught)

    def forward(self, features: Tensor, teacher: Tensor) -> Tensor:
        """Return one minus the mean cosine similarity.

        Args:
            features: feature maps (B, C, 2 h, 2 w).
            teacher: feature maps of the teacher (B, T, h, w).
        """
        ours = functional.avg_pool2d(features.float(), 2).permute(0, 2, 3, 1).flatten(0, 2)
        theirs = self.norm(teacher.float().permute(0, 2, 3, 1).flatten(0, 2))
        return 1.0 - functional.cosine_similarity(self.guess(ours), theirs).mean()


def _objects(labels: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return image and label of each object (S,), and its share of each cell (S, cells)."""
    known = labels.unique()[1:]
    coverage = functional.avg_pool2d(
        (labels[:, None] == known[:, None, None]).float(), stride
    ).flatten(2)
    image, column = torch.nonzero(coverage.amax(2), as_tuple=True)
    return image, known[column], coverage[image, column]


# ---- training ------------------------------------------------------------------------------------


def build(name: str) -> nn.Module:
    """Return the architecture with random weights."""
    return {"tiny-resnet": TinyResNet, "tiny-vit": tiny_vit}[name]()


def load(name: str, path: Path) -> nn.Module:
    """Return the architecture with the weights of a file, in eval mode."""
    model = build(name)
    model.load_state_dict(load_file(path))
    return model.eval().to(memory_format=torch.channels_last)


def layer_outputs(model: Any, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Return feature maps (B, C, h, w) of images (B, 3, H, W) in 0 .. 255."""
    x = (images.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
    kept: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(layer).register_forward_hook(
            lambda _m, _i, output, layer=layer: kept.__setitem__(layer, output)
        )
        for layer in layers
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
    for hook in hooks:
        hook.remove()
    return {layer: _as_map(kept[layer], model, x) for layer in layers}


def _as_map(output: Tensor, model: Any, images: Tensor) -> Tensor:
    """Convert tokens (B, N, C) to a map; maps are unchanged."""
    if output.ndim == 4:
        return output
    height, width = model.patch_embed.dynamic_feat_size(images.shape[-2:])
    tokens = output[:, model.num_prefix_tokens :].transpose(1, 2)
    return tokens.reshape(len(tokens), -1, height, width)


def train(name: str, plan: Plan) -> nn.Module:
    """Train one encoder for `plan.minutes` and return its averaged weights.

    Each process renders its own scenes on one thread; gradients are averaged over processes.
    """
    templates = training_silhouettes(plan.silhouettes, plan.seed)
    log.info("%d training silhouettes", len(templates))
    with tempfile.TemporaryDirectory() as folder:
        arguments = (name, plan, templates, Path(folder))
        spawn(_train_rank, arguments, plan.processes)
        model = build(name)
        model.load_state_dict(torch.load(Path(folder) / "average.pt"))
    return model.eval()


def _train_rank(
    rank: int, name: str, plan: Plan, templates: Sequence[Template], folder: Path
) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)  # synchronised threads are slow on a busy machine
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=plan.processes
    )
    torch.manual_seed(plan.seed + rank)
    model: Any = build(name).to(memory_format=torch.channels_last)
    layers = LAYERS[name]
    probe = layer_outputs(model.eval(), torch.zeros(1, 3, 160, 160), layers)
    losses = nn.ModuleList([Losses(probe[k].shape[1], plan.silhouettes) for k in layers])
    teacher = None
    if name == "tiny-vit":
        teacher = load("tiny-resnet", WEIGHTS / "tiny-resnet.safetensors")
        model.patch_embed.proj.load_state_dict(teacher.state_dict(), strict=False)
        losses.append(Following(probe[layers[-1]].shape[1], 112))
    for module in (model, losses):
        for value in module.state_dict().values():
            distributed.broadcast(value, 0)
    average = copy.deepcopy(model)
    model.train()
    parameters = [*model.parameters(), *losses.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.03},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=True)
    trend: dict[str, float] = {}
    began, spent = time.monotonic(), 0.0
    for step, (images, labels) in enumerate(batches(templates, plan, rank), 1):
        for group in optimizer.param_groups:
            warm = min(1.0, step / 200)
            group["lr"] = plan.rate * warm * (0.5 + 0.5 * math.cos(math.pi * spent))
        if teacher is None:
            clutter = min(1.0, max(0.0, 3.0 * spent - 0.2))
            images = torch.lerp(_flat(labels), images.float(), clutter)
        elif spent < 0.7:
            images, labels = _cropped(images, labels, 112)
        features = layer_outputs(model, images, layers)
        values = {
            f"{layer} {key}": value
            for layer, loss in zip(layers, losses, strict=False)
            for key, value in loss(features[layer], labels.long()).items()
        }
        if teacher is not None:
            with torch.no_grad():
                taught = layer_outputs(teacher, images, [TAUGHT])[TAUGHT]
            values[f"{layers[-1]} follow"] = losses[-1](features[layers[-1]], taught)
        total = torch.stack([WEIGHTS_OF_LOSSES[k.split()[1]] * v for k, v in values.items()]).sum()
        for key, value in values.items():
            trend[key] = 0.97 * trend.get(key, value.item()) + 0.03 * value.item()
        optimizer.zero_grad()
        total.backward()
        _share_gradients(parameters)
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        _follow(average, model, min(0.998, step / (step + 10)))
        spent = _shared((time.monotonic() - began) / (60.0 * plan.minutes))
        if rank == 0 and step % 100 == 0:
            rate = step * plan.batch * plan.processes / (time.monotonic() - began)
            log.info("%.0f %%, step %d, %.0f images/s, %s", 100 * spent, step, rate, _text(trend))
        if spent >= 1.0:
            break
    if rank == 0:
        torch.save(average.state_dict(), folder / "average.pt")
    distributed.destroy_process_group()


def _flat(labels: Tensor) -> Tensor:
    """Return the scenes in flat colours without clutter, for the first part of the training.

    Args:
        labels: int16 (B, H, W).

    Returns:
        float32 (B, 3, H, W) in 0 .. 255.
    """
    known, index = labels.long().unique(return_inverse=True)
    colours = torch.randint(20, 236, (len(labels), len(known), 3)).float()
    scenes = torch.arange(len(labels))[:, None, None]
    return colours[scenes, index].permute(0, 3, 1, 2)


def _cropped(images: Tensor, labels: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Crop the same random square of all images: transformers are slow at the full size."""
    top, left = torch.randint(0, images.shape[-1] - side + 1, (2,)).tolist()
    box = (..., slice(top, top + side), slice(left, left + side))
    return images[box], labels[box]


def _share_gradients(parameters: Sequence[nn.Parameter]) -> None:
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _shared(value: float) -> float:
    """Return the mean of the value over processes, so that all branch in the same way."""
    both = torch.tensor([value], dtype=torch.float64)
    distributed.all_reduce(both)
    return both.item() / distributed.get_world_size()


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, keep: float) -> None:
    """Update the moving average of the model's weights and buffers."""
    for ours, theirs in zip(
        average.state_dict().values(), model.state_dict().values(), strict=True
    ):
        if ours.is_floating_point():
            ours.lerp_(theirs, 1.0 - keep)
        else:
            ours.copy_(theirs)


def _text(values: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.3f}" for key, value in values.items())


# ---- evaluation ----------------------------------------------------------------------------------


@torch.no_grad()
def evaluate(model: nn.Module, layers: Sequence[str], *, images: int, episodes: int) -> None:
    """Log the class mIoU of prototype matching on the classes of `shapes`, layer by layer.

    Args:
        model: encoder in eval mode.
        layers: layers to evaluate, one by one.
        images: number of scenes for the episodes.
        episodes: number of episodes per class.
    """
    shapes = Shapes()
    ids = shapes.image_ids("val")[:images]
    pixels = torch.stack([shapes.image(image_id) for image_id in ids])
    labels = torch.zeros(images, *pixels.shape[2:], dtype=torch.long)
    for image_id, label in zip(ids, labels, strict=True):
        for class_id in shapes.class_pixels(image_id):
            label[shapes.mask(image_id, class_id) == 1] = class_id + 1
    counts = functional.one_hot(labels.flatten(1), len(shapes.classes) + 1).sum(1)
    chunks = [layer_outputs(model, part, layers) for part in pixels.split(50)]
    for layer in layers:
        features = torch.cat([chunk[layer].float() for chunk in chunks])
        rng = np.random.default_rng(0)
        tables: dict[str, list[float]] = {"right": [], "wrong": [], "5-shot": []}
        for k in range(1, len(shapes.classes) + 1):
            having = torch.nonzero(counts[:, k] >= 400)[:, 0].numpy()
            tally = {key: np.zeros(2) for key in tables}
            for _ in range(episodes):
                query, *support = rng.choice(having, 6, replace=False)
                others = [j for j in counts[support[0]].nonzero()[1:, 0].tolist() if j != k]
                wrong = int(rng.choice(others))
                for key, ids, label in (
                    ("right", support[:1], k),
                    ("wrong", support[:1], wrong),
                    ("5-shot", support, k),
                ):
                    guess = _match_prototypes(features, labels, query, ids, label)
                    truth = labels[query] == k
                    tally[key] += (int((guess & truth).sum()), int((guess | truth).sum()))
            for key, (both, either) in tally.items():
                tables[key].append(both / max(either, 1))
        summary = {key: 100.0 * float(np.mean(values)) for key, values in tables.items()}
        log.info("%s %s mIoU: %s", layer, tuple(features.shape[1:]), _text(summary))
        log.info("  %s", _text(dict(zip(shapes.classes, tables["right"], strict=True))))


def _match_prototypes(
    features: Tensor, labels: Tensor, query: int, support: Sequence[int], label: int
) -> Tensor:
    """Return the predicted mask, bool (H, W), by nearest prototype of the support."""
    index = torch.as_tensor(np.asarray(support))
    masks = (labels[index] == label).float()[:, None]
    masks = functional.adaptive_avg_pool2d(masks, (features.shape[-2], features.shape[-1]))
    chosen = features[index]
    fore = functional.normalize((chosen * masks).sum((2, 3)) / masks.sum((2, 3)), dim=1).mean(0)
    rest = 1.0 - masks
    back = functional.normalize((chosen * rest).sum((2, 3)) / rest.sum((2, 3)), dim=1).mean(0)
    difference = functional.normalize(fore, dim=0) - functional.normalize(back, dim=0)
    margin = torch.einsum("c,chw->hw", difference, functional.normalize(features[query], dim=0))
    size = (labels.shape[-2], labels.shape[-1])
    large = functional.interpolate(margin[None, None], size, mode="bilinear", align_corners=True)
    return large[0, 0] > 0


# ---- files ---------------------------------------------------------------------------------------


def save(model: nn.Module, path: Path, name: str, plan: Plan, command: str) -> None:
    """Write the weights as float16, with metadata of the training."""
    tensors = {
        key: value.half().contiguous() if value.is_floating_point() else value.contiguous()
        for key, value in model.state_dict().items()
    }
    notes = {
        "trained_on": f"{plan.silhouettes} procedural silhouettes in scenes like those of shapes; "
        "none of the 20 benchmark classes",
        "objective": OBJECTIVES[name],
        "input": "RGB, mean 0.5, standard deviation 0.5, about 160 x 160 pixels",
        "command": command,
        "stored_as": "float16; load as float32",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, notes)
    path.chmod(0o644)
    log.info("%s: %.2f MB", path.name, path.stat().st_size / 1e6)


def main() -> None:
    """Train or load one encoder, and evaluate it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name", choices=sorted(LAYERS))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="weight file to write (default: the shipped one)")
    parser.add_argument("--evaluate-only", action="store_true")
    parser.add_argument("--episodes", type=int, default=30, help="evaluation episodes a class")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    path = arguments.out or WEIGHTS / f"{arguments.name}.safetensors"
    if arguments.evaluate_only:
        model = load(arguments.name, path)
    else:
        rate = RATES[arguments.name]
        plan = Plan(minutes=arguments.minutes, seed=arguments.seed, rate=rate)
        model = train(arguments.name, plan)
        command = f"tools/train_tiny_backbones.py {arguments.name} "
        command += f"--minutes {arguments.minutes:g} --seed {arguments.seed}"
        save(model, path, arguments.name, plan, command)
    evaluate(model, LAYERS[arguments.name], images=600, episodes=arguments.episodes)


if __name__ == "__main__":
    main()
