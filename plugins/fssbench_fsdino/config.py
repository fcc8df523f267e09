"""Options of FS-DINO and of methods that extend it."""

from __future__ import annotations

import inspect
import re
from typing import Any, Literal

import attrs


def multiple_of_16(config: Any, field: attrs.Attribute[int], value: int) -> None:
    """Check a number of channels: attention heads have 16 or 32 channels."""
    if value < 16 or value % 16:
        raise ValueError(f"{field.name} must be a multiple of 16, not {value}")


def three_numbers(
    config: Any, field: attrs.Attribute[tuple[int, ...]], value: tuple[int, ...]
) -> None:
    """Check the channels of three consecutive convolutions."""
    if len(value) != 3 or min(value) < 1:
        example = ",".join(map(str, field.default or ()))
        raise ValueError(f"{field.name} takes three numbers, e.g. {example}")


def as_documented(
    config: type[Any], fields: list[attrs.Attribute[Any]]
) -> list[attrs.Attribute[Any]]:
    """Sort options by the order of the class's docstring: a `field_transformer`.

    Without such a list, the options have the order of the base class, with redefined ones last.
    """
    listed = re.findall(r"^    (\w+): ", inspect.cleandoc(config.__doc__ or ""), re.MULTILINE)
    changed = inspect.get_annotations(config).keys() - set(listed)
    order = [*listed, *(field.name for field in attrs.fields(config.__mro__[1]))]
    return sorted(
        fields, key=lambda field: len(order) if field.name in changed else order.index(field.name)
    )


@attrs.frozen(kw_only=True)
class SegmenterConfig:
    """Options of any `Segmenter`; they are described in `FsDinoConfig`."""

    size: int | None = None
    layer: str = ""
    prompts: Literal["semantic", "initial", "none"] = "semantic"
    adapter: Literal["frozen", "trained"] = "frozen"
    teacher: str = "sam-vit-h"
    teacher_resize: Literal["squash", "letterbox"] = attrs.field(
        default="squash", metadata={"earlier": "squash"}
    )
    positions: Literal["dinov2", "timm"] = attrs.field(
        default="dinov2", metadata={"earlier": "timm"}
    )
    width: int = attrs.field(default=256, validator=multiple_of_16)
    adapter_width: int = attrs.field(default=256, validator=multiple_of_16)
    adapter_inner: int = attrs.field(default=128, validator=multiple_of_16)
    foreground_weight: float = attrs.field(
        default=1.0, validator=attrs.validators.gt(0), metadata={"earlier": 1.0}
    )


@attrs.frozen(kw_only=True, field_transformer=as_documented)
class FsDinoConfig(SegmenterConfig):
    """Options of `FsDino`; the defaults are the paper's full model.

    Attributes:
        size: encoder input side in pixels; None for the backbone's own (518 for DINOv2).
        layer: backbone layer that the adapter reads; "" for the 3rd block of DINOv2-B, the 2nd of
            S, the 4th of L, and a quarter of the depth of others.
        prompts: sparse prompts (table 4): ``semantic`` (semantic-aware visual prompts), ``initial``
            (SAM's embedding of "no point", one frozen token) or ``none`` (SAM's default, an empty
            sparse prompt). The paper's "initial sparse prompt embedding" can
            be read as either of the last two.
        correlation: dense prompts (table 4): ``4d``, or ``prototype`` (the similarity map alone;
            with ``prompts=semantic`` that is the compact version).
        volume: entries of the 4D correlation: ``dot`` (equation 3), or ``cosine``, as in the later
            version (UINO-FSS, equation 5), in one scale with the similarity map that is added.
        support: support positions in the 4D correlation: ``all`` (equation 3), or ``foreground``:
            the background is zero, as in HSNet and UINO-FSS.
        prior: input of SAM's mask downscaling: the prior mask's ``logits``, as in SAM, or its
            ``probability`` (after a sigmoid, as in UINO-FSS).
        adapter: ``frozen``, the paper's, or ``trained`` by the stage ``meta``, for backbones
            without distillation.
        teacher: backbone with the last layer that is distilled into the adapter: ``sam-vit-h`` (the
            paper's), ``sam-vit-l``, ``sam-vit-b`` or any other with `width` channels.
        teacher_resize: teacher's input: ``squash`` (a square as for the student), or ``letterbox``
            (SAM's own: the longer side is resized, the shorter one padded; the map of the image
            inside is stretched to the student's grid).
        positions: interpolation of the encoder's position embeddings while the adapter is distilled
            at 126 and 252 pixels: ``dinov2`` (DINOv2's own code) or ``timm`` (with antialiasing).
            At 518 pixels, and for encoders that are no ViT of timm, both are the same.
        width: channels of SAM's embedding, of prompts and of the decoder; SAM's checkpoints need
            256.
        adapter_width: channels of the adapter's first convolutions.
        adapter_inner: channels of the adapter's self-attention.
        foreground_weight: factor of the foreground's pixels in the training's cross entropies.
        correlation_width: channels of the 4D branch after its first convolution.
        correlation_channels: channels of the 4D branch's upsampling convolutions; three numbers.
    """

    correlation: Literal["4d", "prototype"] = "4d"
    volume: Literal["dot", "cosine"] = "dot"
    support: Literal["all", "foreground"] = "all"
    prior: Literal["logits", "probability"] = "logits"
    correlation_width: int = attrs.field(default=512, validator=multiple_of_16)
    correlation_channels: tuple[int, ...] = attrs.field(
        default=(256, 128, 64), validator=three_numbers
    )
