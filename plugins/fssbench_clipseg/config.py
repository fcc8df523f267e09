"""Options of CLIPSeg."""

from __future__ import annotations

from typing import Any

import attrs
from attrs.validators import ge, gt, le, lt, optional

_not_negative: Any = optional(ge(0))


@attrs.frozen(kw_only=True)
class _Common:
    """Options of both kinds of prompts."""

    threshold: float = attrs.field(default=0.5, validator=[gt(0), lt(1)])


@attrs.frozen(kw_only=True)
class ClipSegConfig(_Common):
    """Options of `ClipSeg`; the prompt is that of the authors' PASCAL-5i experiments.

    Attributes:
        threshold: probability above which a pixel is foreground.
        blur: standard deviation of the blur of the background, in pixels of an image whose longer
            side is the model's input side; 0 for none.
        background: intensity of the background; 1 leaves it as it is, 0 makes it the mean colour.
        context: margin of the crop around the object, in heights and widths of the object; None
            for no crop.
    """

    blur: float = attrs.field(default=3.0, validator=ge(0))
    background: float = attrs.field(default=0.1, validator=[ge(0), le(1)])
    context: float | None = attrs.field(default=0.1, validator=_not_negative)


def _one_place(_: Any, attribute: attrs.Attribute[str], value: str) -> None:
    if value.count("{}") != 1:
        raise ValueError(f"{attribute.name}: write {{}} once, where the name of the class stands")


@attrs.frozen(kw_only=True)
class ClipSegTextConfig(_Common):
    """Options of `ClipSegText`.

    Attributes:
        threshold: probability above which a pixel is foreground.
        template: text of the prompt, with ``{}`` for the name of the class.
    """

    template: str = attrs.field(default="a photo of a {}.", validator=_one_place)
