"""Options of the full model and of its compact variants."""

from __future__ import annotations

from typing import Literal

import attrs

from fssbench_fsdino.config import SegmenterConfig, as_documented, three_numbers


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class UinoFssConfig(SegmenterConfig):
    """Options of `UinoFss`; the defaults are the paper's full model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (518 for DINOv2).
        layer: backbone layer that the adapter reads; "" for the 3rd block of DINOv2-B, the 2nd of
            S, the 4th of L, and a quarter of the depth of others.
        prompts: sparse prompts (table V): ``semantic`` (SVP), ``initial`` (SAM's embedding that
            stands for no point, one learned token) or ``none`` (empty).
        dense: dense prompt (table V): ``volume`` (from 4D correlations), or ``prototype`` (PCS, the
            similarity map of the compact models, which has no parameters).
        hypercorrelation: refinement of the volumes (tables V and VI): ``mamba`` (MHCM), ``cp4d``
            (HSNet's centre-pivot 4D convolutions instead) or ``none`` (they stay as they are).
        contrast: contrastive enhancement (CE, equation 7): the background's correlations are
            subtracted; without it, volumes are those of the foreground.
        volume_layers: l, how many of the encoder's last layers have a volume (equation 8).
        channels: l', of a refined volume.
        query_block: kq, side of a 4D block over query places.
        support_block: ks, the same over support places.
        states: states of the selective scan.
        query_places: side of the grid that query features are averaged to before volumes are made;
            None for all their places, as in the paper.
        support_places: the same of support features.
        pool: weights of support places in the averages of equation 10: ``all``, the same for each,
            as printed, or ``foreground``, the mask's, so that a small object is as loud as a large
            one.
        prior: values of the prior mask for SAM's mask downscaling: ``probability`` (equation
            11) or ``logits``, what SAM itself is given.
        adapter: training of the adapter in the stage ``meta``: ``frozen``, or ``trained``, which is
            table VII's model without distillation when no distilled adapter is given.
        decoder: training of SAM's decoder in the stage ``meta``: ``trained`` or ``frozen``.
        teacher: backbone whose last layer distillation teaches the adapter: ``sam-vit-h`` (the
            paper's), ``sam-vit-l``, ``sam-vit-b`` or any other that gives `width` channels.
        width: channels of SAM's embedding, of prompts and of the decoder; SAM's checkpoints need
            256.
        adapter_width: channels of the adapter's first convolutions.
        adapter_inner: channels of the adapter's self-attention.
        prompt_inner: channels between the two convolutions of the semantic prompt.
        decode: channels of the convolutions that turn a pooled volume into the prior mask.
    """

    dense: Literal["volume", "prototype"] = "volume"
    hypercorrelation: Literal["mamba", "cp4d", "none"] = "mamba"
    contrast: bool = True
    volume_layers: int = 3
    channels: int = 64
    query_block: int = 4
    support_block: int = 4
    states: int = 1
    query_places: int | None = None
    support_places: int | None = None
    pool: Literal["all", "foreground"] = "all"
    prior: Literal["probability", "logits"] = "probability"
    decoder: Literal["trained", "frozen"] = "trained"
    prompt_inner: int = 24
    decode: tuple[int, ...] = attrs.field(default=(128, 128, 64), validator=three_numbers)

    def __attrs_post_init__(self) -> None:
        if self.channels < 4 or self.channels % 4:
            raise ValueError(f"channels must be a multiple of 4, not {self.channels}")
        for name in ("volume_layers", "query_block", "support_block", "states", "prompt_inner"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("query_places", "support_places"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class UinoFssCompConfig(UinoFssConfig):
    """Options of the compact `UinoFss` (UINO-FSS-Comp): those of the full model, see there."""

    dense: Literal["volume", "prototype"] = "prototype"


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class UinoFssCompFrozenConfig(UinoFssCompConfig):
    """Options of the compact `UinoFss` with a frozen decoder (UINO-FSS-Comp*): the same."""

    decoder: Literal["trained", "frozen"] = "frozen"
