"""Numbers of authors' own codes; their weights and inputs, made again by the fixtures' rules."""

from __future__ import annotations

import ast
import re
import zlib
from pathlib import Path

import attrs
import numpy as np
import torch

DAMPING = {
    ".bn3.weight": 0.2,
    ".downsample.1.weight": 0.5,
    ".attn.proj.weight": 0.1,
    ".mlp.fc2.weight": 0.1,
    ".patch_embed.norm.weight": 0.5,
    ".downsample.reduction.weight": 0.4,
    ".mix_transformer.cls.4.weight": 0.03,
}
MERGES = ("gram_merge.weight", "cls_merge.weight")


@attrs.frozen
class Golden:
    """One file of numbers and the run that made them."""

    run: dict
    arrays: dict

    def near(self, name, tensor, tolerance):
        """Compare with an array or its stride-K part, relative to the abs-max of the whole."""
        found = tensor.detach().double().numpy()
        stats = self.arrays[f"{name}__stats"]
        scale = stats[3]
        assert abs(np.abs(found).max() - scale) <= tolerance * scale
        for key, expected in self.arrays.items():
            match = re.fullmatch(rf"{name}(?:__s(\d+))?", key)
            if match:
                step = int(match[1] or 1)
                deviation = np.abs(found[..., ::step, ::step] - expected).max() / scale
                assert deviation <= tolerance, (key, deviation)
                return deviation
        raise KeyError(name)

    def bits(self, name):
        shape = self.arrays[f"{name}__shape"]
        flat = np.unpackbits(self.arrays[f"{name}__bits"])[: np.prod(shape)]
        return torch.from_numpy(flat.reshape(shape).astype(bool))


@attrs.frozen(kw_only=True)
class Authors:
    """What there is of a method's authors.

    Attributes:
        matcher: our name of the method.
        backbone: our name of its encoder.
        listing: the file that lists the tensors of their model.
        numbers: what names of files with their numbers begin with.
        file: what they call a checkpoint, with a place for what tells checkpoints apart.
        bias: the tensor that is added to, to move the balance of background and foreground.
        epoch: the state dict lies in their checkpoint beside the epoch.
    """

    matcher: str
    backbone: str
    listing: str
    numbers: str
    file: str
    bias: str
    epoch: bool = False


def draw(name, shape):
    """A tensor of the weight rule."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    x = x.astype(np.float32).astype(np.float64)
    last = name.rpartition(".")[2]
    if name in MERGES:
        value = np.array([1.0, 0.0]).reshape(shape) + 0.2 * x
    elif last == "weight" and len(shape) > 1:
        value = x * np.sqrt(2 / np.prod(shape[1:]))
    elif last == "weight":
        value = 1 + 0.1 * x
    elif last in ("bias", "running_mean"):
        value = 0.1 * x
    elif last == "running_var":
        value = np.exp(0.1 * x)
    else:
        value = 0.02 * x
    value = value * next((f for end, f in DAMPING.items() if name.endswith(end)), 1.0)
    return torch.from_numpy(value.astype(np.float32))


def fill(module):
    """Set a module's weights by the weight rule and the names of its parameters."""
    module.load_state_dict({n: draw(n, tuple(t.shape)) for n, t in module.state_dict().items()})


def authors_state(listing: Path):
    """State dict of the authors' model, from the list of its names and shapes."""
    state = {}
    for line in listing.read_text().splitlines()[1:]:
        name, shape, branch, *_ = line.split("\t")
        sizes = () if shape == "scalar" else tuple(map(int, shape.split("x")))
        if branch == "kept":
            counter = name.endswith("num_batches_tracked")
            state[name] = torch.zeros((), dtype=torch.long) if counter else torch.zeros(sizes)
        else:
            state[name] = draw(name, sizes)
    return state


def picture(seed, shape):
    """Pixels in [0, 1]."""
    return torch.from_numpy(np.random.default_rng(seed).random(shape).astype(np.float32))


def region(shape, size):
    """A mask: ('disc', cy, cx, r) or ('rect', y0, y1, x0, x1)."""
    y, x = np.mgrid[:size, :size]
    if shape[0] == "disc":
        _, cy, cx, r = shape
        inside = (y - cy) ** 2 + (x - cx) ** 2 <= r**2
    else:
        _, y0, y1, x0, x1 = shape
        inside = (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)
    return torch.from_numpy(inside.astype(np.uint8))


def read_golden(folder: Path, file: str) -> Golden:
    """A file of numbers, and from the fixtures' description the run that made it."""
    text = (folder / "README.md").read_text()
    run = re.search(rf"### {re.escape(file)}.*?run: `(\{{.*?\}})`", text, re.DOTALL)
    with np.load(folder / file) as arrays:
        return Golden(ast.literal_eval(run[1]), dict(arrays))
