"""Options of the method."""

from __future__ import annotations

from typing import Literal

import attrs

from fssbench_hdmnet.distillation import Distillation
from fssbench_hdmnet.matching import Matching


@attrs.frozen(kw_only=True)
class HdmNetConfig:
    """Options of `HdmNet`; the defaults are the paper's final model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (473 for PSPNet's). The
            authors take 473 for PASCAL and 633 for COCO.
        base_classes: base classes of a fold, which the base learner tells apart: 15 on PASCAL-5i
            and shapes, 60 on COCO-20i.
        shots: K that the model is trained for. It matters to the ensemble's reweighting of shots
            alone; any number of supports is accepted.
        layers: backbone layers that take the places of a ResNet's ``layer2``, ``layer3`` (fused)
            and ``layer4`` (priors and base learner); empty for the last three stages.
        grid: stride of the map that is matched; None for the size of the second layer.
        stages: depth of the pyramid (table 7).
        matching: how weights are made of correlations (table 5).
        temperature: t of equation 4.
        distillation: what teaches correlation maps (table 6).
        distillation_temperature: T of equation 8 (table 9).
        ensemble: base learner and matching are merged (table 4, "Ens."); without it, the base
            learner makes one of the two priors and nothing else.
        support_mask: supports are masked; without it the matcher is not told which object is meant
            (appendix A.2).
        dropout: probability that a channel of the reduced features is dropped.
        attention_dropout: rate of dropout behind attention and in feed-forward layers.
    """

    size: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    base_classes: int = attrs.field(default=15, validator=attrs.validators.ge(1))
    shots: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    layers: tuple[str, ...] = ()
    grid: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    stages: Literal["S1", "S2", "S3", "S4"] = "S3"
    matching: Matching = "cosine-inverse-softmax"
    temperature: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    distillation: Distillation = "kl-kd"
    distillation_temperature: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))
    ensemble: bool = True
    support_mask: bool = True
    dropout: float = attrs.field(
        default=0.5, validator=[attrs.validators.ge(0), attrs.validators.lt(1)]
    )
    attention_dropout: float = attrs.field(
        default=0.1, validator=[attrs.validators.ge(0), attrs.validators.lt(1)]
    )

    def __attrs_post_init__(self) -> None:
        if len(self.layers) not in (0, 3):
            raise ValueError("layers: name three, e.g. layer2,layer3,layer4, or none")
