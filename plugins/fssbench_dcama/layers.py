"""Choice of the backbone's layers: all of a scale."""

from __future__ import annotations

from fssbench import BackboneInfo, FssbenchError


def layers_at(backbone: BackboneInfo, stride: int) -> list[str]:
    """Every block's output at a scale, shallow to deep; before its last ReLU, if it ends in one.

    Args:
        backbone: names and shapes of the features.
        stride: of the scale.

    Raises:
        FssbenchError: the backbone has no such scale.
    """
    names = [
        f"{name}:pre" if layer.relu else name
        for name, layer in backbone.layers.items()
        if layer.stride == stride
    ]
    if not names:
        strides = sorted({layer.stride for layer in backbone.layers.values()})
        raise FssbenchError(
            f"dcama needs a layer of stride {stride}, and {backbone.name} has strides "
            f"{', '.join(map(str, strides))}; choose resnet50, resnet101, swin-b or another "
            "backbone of four scales"
        )
    return names
