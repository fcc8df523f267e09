"""Options of RePRI."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import deep_iterable, ge, gt, lt, optional


@attrs.frozen(kw_only=True)
class RePriConfig:
    """Options of `RePri`; the defaults are the paper's model.

    Attributes:
        head: module between backbone and classifier: ``psp`` (PSPNet's pyramid pooling and
            bottleneck to 512 channels, trained in the stage `base`), or ``none`` (the backbone's
            features as they are; the matcher has no parameters).
        base_classes: number of base classes of a fold, which the head is trained on: 15 on
            PASCAL-5i and shapes, 60 on COCO-20i.
        size: encoder input side in pixels; None for the backbone's own. The authors take 417.
        layers: backbone layers, concatenated at the size of the first; empty for the deepest.
        temperature: factor of the cosine.
        iterations: number of iterations as the authors count them, one more than gradient steps;
            1 for the classifier without adaptation.
        lr: learning rate of the gradient steps.
        kl_weight: initial weight of the proportions' KL divergence; None for 1/K.
        entropy_weight: weight of the query's entropy; None for 1/K.
        proportion_updates: iterations, from 2, before which the proportions are estimated again
            and the weight of their divergence grows by 1; without effect if that weight is 0.
        dropout: probability that a channel of the head is dropped in the stage `base`.
    """

    head: Literal["psp", "none"] = "psp"
    base_classes: int = attrs.field(default=15, validator=ge(1))
    size: int | None = attrs.field(default=None, validator=optional(gt(0)))
    layers: tuple[str, ...] = ()
    temperature: float = attrs.field(default=20.0, validator=gt(0))
    iterations: int = attrs.field(default=50, validator=ge(1))
    lr: float = attrs.field(default=0.025, validator=gt(0))
    kl_weight: float | None = attrs.field(default=None, validator=optional(ge(0)))
    entropy_weight: float | None = attrs.field(default=None, validator=optional(ge(0)))
    proportion_updates: tuple[int, ...] = attrs.field(default=(10,), validator=deep_iterable(ge(2)))
    dropout: float = attrs.field(default=0.1, validator=[ge(0), lt(1)])
