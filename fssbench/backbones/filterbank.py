"""Colour and oriented filters: an encoder without learning, as a lower bound for the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fssbench.backbones.backbone import Backbone, BackboneInfo, LayerInfo, WeightsInfo
from fssbench.errors import FssbenchError

SCALES = (1, 2, 4)
ORIENTATIONS = 6
CELL = 4  # side of the square of positions that are averaged into one output position
# Luminance, red minus green, and blue minus yellow; the latter two are 0 for grey.
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0))


class FilterBank(Backbone):
    """Local colour, contrast and orientation at three scales.

    Layer ``scale1`` is computed from the image, ``scale2`` and ``scale4`` from the image reduced by
    2 and 4. Each has 3 colour channels, 1 of contrast in [0, 1), and 6 of the relative differences
    of orientations from their mean. Layer ``all`` concatenates the three at stride 8.
    """

    even: Tensor
    odd: Tensor
    opponent: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = len(OPPONENT) + 1 + ORIENTATIONS
        layers = {f"scale{scale}": LayerInfo(channels, CELL * scale) for scale in SCALES}
        layers["all"] = LayerInfo(channels * len(SCALES), 2 * CELL)
        self.info = BackboneInfo(name="filterbank", layers=layers, image_size=256, multiple=16)
        self.weights = WeightsInfo(source="none")
        for name, value in (
            ("mean", torch.full((3, 1, 1), 0.5)),
            ("std", torch.full((3, 1, 1), 0.5)),
            ("opponent", torch.tensor(OPPONENT)[:, :, None, None]),
            ("even", _gabor_filters(torch.cos)),
            ("odd", _gabor_filters(torch.sin)),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the features of some layers; see `Backbone.forward`."""
        self.info.check(images, layers)
        colours = functional.conv2d((images - self.mean) / self.std, self.opponent)
        needed = [s for s in SCALES if "all" in layers or f"scale{s}" in layers]
        maps = {
            f"scale{scale}": self._maps(functional.avg_pool2d(colours, scale)) for scale in needed
        }
        if "all" in layers:
            fine = functional.avg_pool2d(maps["scale1"], 2)
            coarse = functional.interpolate(maps["scale4"], scale_factor=2, mode="bilinear")
            maps["all"] = torch.cat([fine, maps["scale2"], coarse], 1)
        return {name: maps[name] for name in layers}

    def _maps(self, colours: Tensor) -> Tensor:
        """Convert colours (B, 3, H, W) to maps (B, 10, H / CELL, W / CELL)."""
        margin = self.even.shape[-1] // 2
        luminance = functional.pad(colours[:, :1], (margin,) * 4, mode="replicate")
        energy = (
            functional.conv2d(luminance, self.even).square()
            + functional.conv2d(luminance, self.odd).square()
        )
        # The constant makes sqrt differentiable in patches without contrast.
        energy = _average((energy + 1e-8).sqrt())
        contrast = energy.mean(1, keepdim=True)
        # Below the constant (contrast from black to white is 2), orientation is treated as noise.
        orientation = (energy - contrast) / (contrast + 0.02)
        return torch.cat([_average(colours), contrast / (contrast + 0.1), orientation], 1)


def filterbank(*, weights: str) -> Backbone:
    """Return the filter bank.

    Raises:
        FssbenchError: weights are given.
    """
    if weights not in ("pretrained", "none"):
        raise FssbenchError(f"filterbank has no weights: leave out --weights {weights}")
    return FilterBank().freeze()


def _average(maps: Tensor) -> Tensor:
    cells = functional.avg_pool2d(maps, CELL)
    return functional.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)


def _gabor_filters(wave: Callable[[Tensor], Tensor]) -> Tensor:
    """Return Gabor filters of sum 0, (ORIENTATIONS, 1, 9, 9): even of cos, odd of sin."""
    sigma, wavelength = 1.8, 5.0
    axis = torch.arange(9) - 4
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    filters = []
    for index in range(ORIENTATIONS):
        angle = math.pi * index / ORIENTATIONS
        phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / wavelength)
        kernel = envelope * wave(phase)
        kernel = kernel - envelope * (kernel.sum() / envelope.sum())
        filters.append(kernel / kernel.abs().sum())
    return torch.stack(filters)[:, None]
