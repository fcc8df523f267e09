"""Encoders of timm by timm's own names: ``timm/NAME``, with or without the tag of its weights.

Layers, strides, channels, colours and input size are those of timm's configuration. The sides that
a model takes are found by calling it on the meta device, where tensors have shapes and no values.
"""

from __future__ import annotations

import contextlib
import functools
import math
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg, is_model, list_models, list_pretrained, model_entrypoint
from torch import Tensor, nn

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone, LayerInfo
from fssbench.backbones.stepped import assemble
from fssbench.backbones.timm_models import FeatureBackbone
from fssbench.errors import FssbenchError, near
from fssbench.specs import BackboneSpec

# Options of models that then take images of other sizes than their weights were trained with.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


def spec(name: str) -> BackboneSpec:
    """Return the spec of an encoder, under its name with the tag of its weights.

    Args:
        name: timm's name, e.g. ``resnet18.a1_in1k``, or ``resnet18`` for the tag that is timm's
            default.

    Raises:
        FssbenchError: timm has no such model, or no weights of that tag.
    """
    model, _, tag = name.lower().replace("-", "_").partition(".")
    if not is_model(model):
        raise FssbenchError(
            f"timm {timm.__version__} has no model {model!r}; {near(model, list_models())}"
            "timm.list_models() returns all names"
        )
    try:
        entry: Any = get_pretrained_cfg(f"{model}.{tag}" if tag else model)
    except RuntimeError as error:
        tags = list_pretrained(f"{model}.*")
        raise FssbenchError(
            f"timm {timm.__version__} has no weights {model}.{tag}; "
            f"{near(f'{model}.{tag}', tags)}it has {', '.join(tags) or 'none of that model'}"
        ) from error
    full = f"{model}.{entry.tag}" if entry.tag else model
    return BackboneSpec(
        name=f"timm/{full}",
        summary=f"{model} of timm",
        factory=f"{__name__}:encoder",
        arguments={"name": f"timm/{full}", "tag": full},
        licence=entry.license or "",
        cite=("fssbench:wightman2019timm",),
    )


def encoder(*, weights: str, name: str, tag: str) -> Backbone:
    """Return an encoder of timm; files that timm can convert fit as well.

    Args:
        weights: ``pretrained``, ``random``, ``none`` or a file.
        name: the registered name.
        tag: timm's name of the model and its weights.

    Raises:
        FssbenchError: the model has no ``forward_intermediates``, no layer of it is a map of the
            stride that timm states, or the weights do not fit.
    """
    source = weight_files.resolve(weights, backbone=name, tag=tag)
    shapes, info = _described(tag)
    return assemble(
        FeatureBackbone,
        (lambda: shapes) if source.info.source == weight_files.NONE else partial(_model, tag),
        source,
        name=name,
        tag=tag,
        rename=partial(_timm_names, shapes, tag),
        **info,
    )


def _model(tag: str) -> nn.Module:
    """Make a model without a classifier."""
    for options in _ANY_SIZE:
        with contextlib.suppress(TypeError):  # an unknown option
            return timm.create_model(tag, pretrained=False, num_classes=0, **options)
    raise FssbenchError(f"timm {timm.__version__} cannot make {tag} without a classifier")


@functools.cache
def _described(tag: str) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model on the meta device, and ``image_size``, ``multiple`` and ``layers`` of it."""
    size = weight_files.hub_entry(tag).input_size[-1]
    none = weight_files.resolve(weight_files.NONE, backbone=tag)
    with torch.device("meta"):
        model = _model(tag)
        if not hasattr(model, "forward_intermediates"):
            raise FssbenchError(
                f"timm/{tag}: it has no forward_intermediates in timm {timm.__version__}; choose "
                "another encoder"
            )
        trial = assemble(
            FeatureBackbone, lambda: model, none, name=tag, tag=tag, image_size=size, multiple=1
        )
    stride = max(layer.stride for layer in trial.layers.values())
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", 1)
    patch = patch if isinstance(patch, int) else max(patch)
    best, layers = size, dict[str, LayerInfo]()
    for multiple in sorted({1, patch, stride, size}):
        side = math.ceil(size / multiple) * multiple
        steps = 0 if multiple == size else stride // multiple + 1  # to another number of cells
        found = _layers_at(trial, side + steps * multiple, side + 3 * steps * multiple)
        if len(found) > len(layers):
            best, layers = multiple, found
        if len(layers) == len(trial.layers):
            break
    if not layers:
        raise FssbenchError(
            f"timm/{tag}: timm {timm.__version__} makes no maps of the stated strides from shapes "
            "alone; choose another encoder"
        )
    image_size = math.ceil(size / best) * best
    return model, {"image_size": image_size, "multiple": best, "layers": layers}


def _layers_at(backbone: Backbone, height: int, width: int) -> dict[str, LayerInfo]:
    """Return the layers with maps of the stated shapes; {} if the model refuses the image."""
    try:
        maps = backbone(torch.empty(1, 3, height, width, device="meta"), list(backbone.layers))
    except Exception:  # any error of the model's code
        return {}
    return {
        name: layer
        for name, layer in backbone.layers.items()
        if maps[name].shape[1] == layer.channels
        and all(
            math.floor(side / layer.stride) <= cells <= math.ceil(side / layer.stride)
            for side, cells in zip((height, width), maps[name].shape[2:], strict=True)
        )
    }


def _timm_names(shapes: nn.Module, tag: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by timm's names, from a file of timm or one that timm can convert.

    Args:
        shapes: the model on the meta device.
        tag: name of the model.
        state: tensors of the file.
    """
    expected = shapes.state_dict()
    found = dict(state)
    convert = getattr(sys.modules[model_entrypoint(tag).__module__], "checkpoint_filter_fn", None)
    if convert and weight_files.mismatch(expected, found):
        with contextlib.suppress(Exception):  # of files in none of the formats that it knows
            # Position embeddings of another size, which timm interpolates, remain as they are.
            found = {
                name: state[name]
                if name in state and state[name].numel() != tensor.numel()
                else tensor
                for name, tensor in convert(dict(state), shapes).items()
            }
    heads = weight_files.hub_entry(tag).classifier or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    return {k: v for k, v in found.items() if k in expected or not k.startswith(prefixes)}
