"""Options of DCAMA."""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True)
class DcamaConfig:
    """Options of `Dcama`; the defaults are the paper's final model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (384 for ResNet and Swin-B).
        attention: strides of the scales whose layers aggregate masks (table S4).
        skip: strides of the scales whose last layer is an input of the mixer (table S3).
        support_skip: skip connections of the support for the mixer (table S5, row a).
        background: background pixels of the support take part; without them, support features are
            multiplied with the mask before attention (table 3).
        pixels: support pixels of each shot and scale that take part, up to half of them from the
            foreground, evenly spread; None for all (table S5, row b).
        shots: use of several shots (table 4): ``one-pass`` (all their pixels are keys at
            once), or ensembles of 1-shot predictions: ``voting``, ``averaging``, ``hsnet`` (votes
            divided by the largest vote) and ``scl`` (cross-guided averaging).
        output: ``mask``, or the aggregated masks of one scale, summed over its layers and binarised
            with Otsu's method (figure 6): ``1/8``, ``1/16`` or ``1/32``.
        heads: attention heads.
        dropout: in training, of features with positions and of attention weights.
        gain: factor of the initial weights of the attention's projections; 1 as in the authors'
            code. Features of small norm need more (not in the paper): with 1, their attention
            starts almost uniform and the mixer learns to ignore it.
    """

    size: int | None = None
    attention: tuple[int, ...] = (8, 16, 32)
    skip: tuple[int, ...] = (4, 8)
    support_skip: bool = True
    background: bool = True
    pixels: int | None = None
    shots: Literal["one-pass", "voting", "averaging", "hsnet", "scl"] = "one-pass"
    output: Literal["mask", "1/8", "1/16", "1/32"] = "mask"
    heads: int = 8
    dropout: float = 0.5
    gain: float = 1.0

    def __attrs_post_init__(self) -> None:
        for name, strides, known in (
            ("attention", self.attention, (8, 16, 32)),
            ("skip", self.skip, (4, 8, 16)),
        ):
            if set(strides) - set(known) or len(set(strides)) < len(strides):
                raise ValueError(f"{name}: give each of {', '.join(map(str, known))} at most once")
        if not self.attention:
            raise ValueError("attention: name at least one of 8, 16, 32")
        if self.output != "mask" and int(self.output[2:]) not in self.attention:
            raise ValueError(f"output {self.output}: attention has no such scale")
        if self.pixels is not None and self.pixels < 2:
            raise ValueError("pixels: at least 2, or none for all")
        if self.heads < 1 or not 0 <= self.dropout < 1:
            raise ValueError("heads must be at least 1, and dropout in [0, 1)")
        if not self.gain > 0:
            raise ValueError("gain must be above 0")
