"""Choice of the backbone's layers: two of middle level, and the deepest."""

from __future__ import annotations

import re

from fssbench import BackboneInfo, FssbenchError


def choose_layers(backbone: BackboneInfo) -> tuple[str, str, str]:
    """The layers that take the places of ``layer2``, ``layer3`` and ``layer4`` of a ResNet.

    Blocks called ``layerN…`` are parts of stage N; elsewhere a stage is all layers of one stride.
    The last layers of the last three stages are chosen. A backbone of fewer stages (a vision
    transformer) gives its layers at one half, three quarters and the end of its depth.

    Args:
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: there are fewer than three layers.
    """
    last: dict[str, str] = {}
    for name, layer in backbone.layers.items():
        stage = re.match(r"layer\d+(?=\.|$)", name)
        last[stage[0] if stage else f"stride {layer.stride}"] = name
    if len(last) < 3:
        names = list(backbone.layers)
        if len(names) < 3:
            raise FssbenchError(
                f"hdmnet needs three layers, and {backbone.name} has {len(names)}; choose "
                "resnet50-psp or another backbone"
            )
        count = len(names)
        return names[(count - 1) // 2], names[max(1, 3 * (count - 1) // 4)], names[-1]
    middle, upper, deepest = list(last.values())[-3:]
    return middle, upper, deepest
