"""Colour and oriented filters: an encoder that learned nothing, as a floor for the others."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from fssbench.backbones.backbone import Backbone, BackboneInfo, LayerInfo, WeightsInfo
from fssbench.errors import FssbenchError

SCALES = (1, 2, 4)
ORIENTATIONS = 6
CELL = 4  # positions that are averaged into one output position
# Luminance, red against green, blue against yellow; grey is 0 in the latter two.
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0))


class FilterBank(Backbone):
    """Local colour, contrast and orientation at three scales.

    Layer ``scale1`` looks at the image, ``scale2`` and ``scale4`` at the image reduced by 2 and 4;
    each gives 3 colour channels, 1 of contrast in [0, 1), and 6 that tell how much stronger an
    orientation is than the average one. ``all`` holds the three at stride 8.
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
        even, odd = _quadrature_pairs()
        buffers = {
            "mean": torch.full((3, 1, 1), 0.5),
            "std": torch.full((3, 1, 1), 0.5),
            "opponent": torch.tensor(OPPONENT)[:, :, None, None],
            "even": even,
            "odd": odd,
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Features of some layers; see `Backbone.forward`."""
        self.info.check(images, layers)
        colours = functional.conv2d((images - self.mean) / self.std, self.opponent)
        needed = [s for s in SCALES if "all" in layers or f"scale{s}" in layers]
        maps = {
            f"scale{scale}": self._maps(functional.avg_pool2d(colours, scale)) for scale in needed
        }
        if "all" in layers:
            size = maps["scale2"].shape[-2:]
            coarse = functional.interpolate(
                maps["scale4"], size, mode="bilinear", align_corners=False
            )
            maps["all"] = torch.cat(
                [functional.avg_pool2d(maps["scale1"], 2), maps["scale2"], coarse], 1
            )
        return {name: maps[name] for name in layers}

    def _maps(self, colours: Tensor) -> Tensor:
        """(B, 3, H, W) colours to (B, 10, H / CELL, W / CELL)."""
        margin = self.even.shape[-1] // 2
        luminance = functional.pad(colours[:, :1], (margin,) * 4, mode="replicate")
        energy = (
            functional.conv2d(luminance, self.even).square()
            + functional.conv2d(luminance, self.odd).square()
        )
        # sqrt is not differentiable at 0, where an even patch puts it.
        energy = _average((energy + 1e-8).sqrt())
        contrast = energy.mean(1, keepdim=True)
        # The constant decides below which contrast (of 2, black to white) orientation is noise.
        orientation = (energy - contrast) / (contrast + 0.02)
        return torch.cat([_average(colours), contrast / (contrast + 0.1), orientation], 1)


def filterbank(*, weights: str) -> Backbone:
    """The filter bank.

    Raises:
        FssbenchError: weights were asked for.
    """
    if weights not in ("pretrained", "none"):
        raise FssbenchError(f"filterbank has no weights: leave out --weights {weights}")
    return FilterBank().freeze()


def _average(maps: Tensor) -> Tensor:
    cells = functional.avg_pool2d(maps, CELL)
    return functional.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)


def _quadrature_pairs(size: int = 9, sigma: float = 1.8, wavelength: float = 5.0) -> list[Tensor]:
    """Even and odd Gabor filters, (ORIENTATIONS, 1, size, size) each; they sum to 0."""
    axis = torch.arange(size) - size // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * sigma**2))
    pairs: list[Tensor] = []
    for wave in (torch.cos, torch.sin):
        filters = []
        for index in range(ORIENTATIONS):
            angle = math.pi * index / ORIENTATIONS
            phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / wavelength)
            kernel = envelope * wave(phase)
            kernel = kernel - envelope * (kernel.sum() / envelope.sum())
            filters.append(kernel / kernel.abs().sum())
        pairs.append(torch.stack(filters)[:, None])
    return pairs
