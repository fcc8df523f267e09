"""Options of the full model and of its compact variants."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import ge, optional

from fssbench_fsdino.config import SegmenterConfig, as_documented, three_numbers


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class UinoFssConfig(SegmenterConfig):
    """Options of `UinoFss`; the defaults are the paper's full model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (518 for DINOv2).
        layer: backbone layer that the adapter reads; "" for the 3rd block of DINOv2-B, the 2nd of
            S, the 4th of L, and a quarter of the depth of others.
        prompts: sparse prompts (table V): ``semantic`` (SVP), ``initial`` (SAM's embedding that
            stands for no point, one frozen token) or ``none`` (empty).
        dense: dense prompt (table V): ``volume`` (from 4D correlations), or ``prototype`` (PCS, the
            similarity map of the compact models, which has no parameters).
        hypercorrelation: refinement of the volumes (tables V and VI): ``mamba`` (MHCM), ``cp4d``
            (HSNet's centre-pivot 4D convolutions) or ``none``.
        contrast: contrastive enhancement (CE, equation 7): the background's correlations are
            subtracted; without it, volumes are those of the foreground.
        volume_layers: l, number of the encoder's last layers with a volume (equation 8).
        norm: volumes' layers that are taken after the encoder's final norm: ``all``, as DINOv2's
            own code returns its last layers, or only the ``last``.
        mask: support mask of the volumes: ``binary`` (equation 4: a position is foreground if at
            least half of its pixels are; if none is, the positions with the largest share are), or
            ``share`` (the share of foreground pixels weights both cosines).
        channels: l', channels of a refined volume.
        query_block: kq, side of a 4D block over query positions.
        support_block: ks, side of a 4D block over support positions.
        states: number of states of the selective scan.
        query_places: side of the grid that query features are averaged to before the correlation;
            None for no averaging, as in the paper.
        support_places: side of the same grid for support features.
        pool: weights of support positions in the averages of equation 10: ``all`` for equal
            weights, as printed, or ``foreground`` for the mask's, so that the result does not
            depend on the size of the object.
        prior: input of SAM's mask downscaling: the prior mask's ``probability`` (equation 11), or
            its ``logits``, as in SAM.
        adapter: training of the adapter in the stage ``meta``: ``frozen``, or ``trained``, which is
            table VII's model without distillation when no distilled adapter is given.
        decoder: training of SAM's decoder in the stage ``meta``: ``trained`` or ``frozen``.
        teacher: backbone with the last layer that is distilled into the adapter: ``sam-vit-h`` (the
            paper's), ``sam-vit-l``, ``sam-vit-b`` or any other with `width` channels.
        teacher_resize: teacher's input, ``squash`` or ``letterbox``; see `FsDinoConfig`.
        positions: interpolation of position embeddings in distillation, ``dinov2`` or ``timm``; see
            `FsDinoConfig`.
        width: channels of SAM's embedding, of prompts and of the decoder; SAM's checkpoints need
            256.
        adapter_width: channels of the adapter's first convolutions.
        adapter_inner: channels of the adapter's self-attention.
        foreground_weight: factor of the foreground's pixels in the training's cross entropies.
        prompt_inner: channels between the two convolutions of the semantic prompt.
        decode: channels of the convolutions from the pooled volume to the prior mask.
    """

    dense: Literal["volume", "prototype"] = "volume"
    hypercorrelation: Literal["mamba", "cp4d", "none"] = "mamba"
    contrast: bool = True
    volume_layers: int = attrs.field(default=3, validator=ge(1))
    norm: Literal["all", "last"] = attrs.field(default="all", metadata={"earlier": "last"})
    mask: Literal["binary", "share"] = attrs.field(default="binary", metadata={"earlier": "share"})
    channels: int = 64
    query_block: int = attrs.field(default=4, validator=ge(1))
    support_block: int = attrs.field(default=4, validator=ge(1))
    states: int = attrs.field(default=1, validator=ge(1))
    query_places: int | None = attrs.field(default=None, validator=optional(ge(1)))
    support_places: int | None = attrs.field(default=None, validator=optional(ge(1)))
    pool: Literal["all", "foreground"] = "all"
    prior: Literal["probability", "logits"] = "probability"
    decoder: Literal["trained", "frozen"] = "trained"
    prompt_inner: int = attrs.field(default=24, validator=ge(1))
    decode: tuple[int, ...] = attrs.field(default=(128, 128, 64), validator=three_numbers)

    def __attrs_post_init__(self) -> None:
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels must be a multiple of 4, not {self.channels}")


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class UinoFssCompConfig(UinoFssConfig):
    """Options of the compact `UinoFss` (UINO-FSS-Comp); see `UinoFssConfig`."""

    dense: Literal["volume", "prototype"] = "prototype"


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class UinoFssCompFrozenConfig(UinoFssCompConfig):
    """Options of the compact `UinoFss` with a frozen decoder (UINO-FSS-Comp*)."""

    decoder: Literal["trained", "frozen"] = "frozen"
