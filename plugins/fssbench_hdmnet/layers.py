"""Choice of the backbone's layers: two intermediate ones and the deepest."""

from __future__ import annotations

import re

from fssbench import BackboneInfo, FssbenchError


def choose_layers(backbone: BackboneInfo) -> tuple[str, str, str]:
    """Return the layers in the roles of ``layer2``, ``layer3`` and ``layer4`` of a ResNet.

    These are the last layers of the last three stages. A stage is all blocks called ``layerN…``, or
    in other backbones all layers of one stride. In a backbone with fewer stages (a vision
    transformer) the layers at one half, three quarters and the end of its depth are chosen.

    Args:
        backbone: names and shapes of the features.

    Raises:
        FssbenchError: there are fewer than three layers.
    """
    last: dict[str, str] = {}
    for name, layer in backbone.layers.items():
        stage = re.match(r"layer\d+(?=\.|$)", name)
        last[stage[0] if stage else f"stride {layer.stride}"] = name
    names = list(backbone.layers)
    end = len(names) - 1
    if end < 2:
        raise FssbenchError(
            f"hdmnet needs three layers, and {backbone.name} has {len(names)}; choose "
            "resnet50-psp or another backbone"
        )
    if len(last) < 3:
        return names[end // 2], names[max(1, 3 * end // 4)], names[end]
    middle, upper, deepest = list(last.values())[-3:]
    return middle, upper, deepest
