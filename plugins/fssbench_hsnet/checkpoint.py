"""Import of the authors' checkpoint files."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fssbench import BackboneInfo, Imported

_LEARNER, _BACKBONE = "hpn_learner.", "backbone."


def import_official(tensors: Mapping[str, Tensor], backbone: BackboneInfo) -> Imported:
    """Separate the learner, whose names are ours, from the backbone that authors' files contain.

    Args:
        tensors: tensors of the authors' file, by name.
        backbone: names and shapes of the encoder's features.
    """
    # The text before the learner's name is the prefix of a wrapper module.
    prefix = next((n.partition(_LEARNER)[0] for n in tensors if _LEARNER in n), "")
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    encoder = {n.removeprefix(_BACKBONE): t for n, t in named.items() if n.startswith(_BACKBONE)}
    weights = {n: t for n, t in named.items() if not n.startswith(_BACKBONE)}
    return Imported(weights=weights, backbone=encoder)
