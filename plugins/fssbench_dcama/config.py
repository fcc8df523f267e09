"""Options of DCAMA."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import ge, gt, lt, optional


@attrs.frozen(kw_only=True)
class DcamaConfig:
    """Options of `Dcama`; the defaults are the paper's final model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (384 for ResNet and Swin-B).
        attention: strides of the scales with mask aggregation (table S4).
        skip: strides of the scales whose last layer has a skip connection to the mixer (table S3).
        support_skip: skip connections of the support for the mixer (table S5, row a).
        background: use the background pixels of the support; without them, support features are
            multiplied with the mask before attention (table 3).
        pixels: number of support pixels of each shot and scale, up to half of them from the
            foreground, evenly spaced; None for all (table S5, row b).
        shots: use of several shots (table 4): ``one-pass`` (all their pixels are keys at
            once), or ensembles of 1-shot predictions: ``voting``, ``averaging``, ``hsnet`` (votes
            divided by the largest vote) and ``scl`` (cross-guided averaging).
        output: ``mask``, or the aggregated masks of one scale, summed over its layers and binarised
            with Otsu's method (figure 6): ``1/8``, ``1/16`` or ``1/32``.
        heads: attention heads.
        dropout: dropout rate in training, of features with positions and of attention weights.
        gain: factor of the initial weights of the attention's projections; 1 as in the authors'
            code. Features of small norm need a larger factor (not in the paper): with 1, the
            initial attention is almost uniform and the mixer learns to ignore it.
        foreground_weight: factor of the foreground's pixels in the training's cross entropy; 1 as
            in the authors' code.
        void: pixels of 255 in that cross entropy: ``background``, as in the authors' code, or
            ``ignore``.
    """

    size: int | None = None
    attention: tuple[int, ...] = (8, 16, 32)
    skip: tuple[int, ...] = (4, 8)
    support_skip: bool = True
    background: bool = True
    pixels: int | None = attrs.field(default=None, validator=optional(ge(2)))
    shots: Literal["one-pass", "voting", "averaging", "hsnet", "scl"] = "one-pass"
    output: Literal["mask", "1/8", "1/16", "1/32"] = "mask"
    heads: int = attrs.field(default=8, validator=ge(1))
    dropout: float = attrs.field(default=0.5, validator=[ge(0), lt(1)])
    gain: float = attrs.field(default=1.0, validator=gt(0))
    foreground_weight: float = attrs.field(default=1.0, validator=gt(0), metadata={"earlier": 1.0})
    void: Literal["background", "ignore"] = attrs.field(
        default="background", metadata={"earlier": "background"}
    )

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
