"""Options of HDMNet."""

from __future__ import annotations

from typing import Any, Literal

import attrs
from attrs.validators import ge, gt, lt, optional

from fssbench_hdmnet.distillation import Distillation
from fssbench_hdmnet.matching import Matching


def _rate(default: float) -> Any:
    return attrs.field(default=default, validator=[ge(0), lt(1)])


@attrs.frozen(kw_only=True)
class HdmNetConfig:
    """Options of `HdmNet`; the defaults are the paper's final model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (473 for PSPNet's). The
            authors take 473 for PASCAL and 633 for COCO.
        base_classes: number of base classes of a fold, which the base learner classifies: 15 on
            PASCAL-5i and shapes, 60 on COCO-20i.
        shots: K that the model is trained for. It affects only the ensemble's reweighting of
            shots; any number of supports is accepted.
        layers: backbone layers in the roles of a ResNet's ``layer2``, ``layer3`` (fused) and
            ``layer4`` (priors and base learner); empty for the last three stages.
        grid: stride of the map that is matched; None for the size of the second layer.
        stages: depth of the pyramid (table 7).
        matching: function from correlations to weights (table 5).
        temperature: t of equation 4.
        distillation: distillation loss of the correlation maps (table 6).
        distillation_temperature: T of equation 8 (table 9).
        ensemble: merge the outputs of base learner and matching (table 4, "Ens."); without it, the
            base learner is only the source of one of the two priors.
        support_mask: use the supports' masks; without them the matcher has no information about
            the object that is meant (appendix A.2).
        dropout: probability that a channel of the reduced features is dropped.
        attention_dropout: dropout rate after attention and in feed-forward layers.
    """

    size: int | None = attrs.field(default=None, validator=optional(gt(0)))
    base_classes: int = attrs.field(default=15, validator=ge(1))
    shots: int = attrs.field(default=1, validator=ge(1))
    layers: tuple[str, ...] = ()
    grid: int | None = attrs.field(default=None, validator=optional(gt(0)))
    stages: Literal["S1", "S2", "S3", "S4"] = "S3"
    matching: Matching = "cosine-inverse-softmax"
    temperature: float = attrs.field(default=0.1, validator=gt(0))
    distillation: Distillation = "kl-kd"
    distillation_temperature: float = attrs.field(default=1.0, validator=gt(0))
    ensemble: bool = True
    support_mask: bool = True
    dropout: float = _rate(0.5)
    attention_dropout: float = _rate(0.1)

    def __attrs_post_init__(self) -> None:
        if len(self.layers) not in (0, 3):
            raise ValueError("layers: name three, e.g. layer2,layer3,layer4, or none")
