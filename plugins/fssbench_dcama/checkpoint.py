"""Import of the authors' checkpoint files."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fssbench import BackboneInfo, Imported
from fssbench_dcama.config import DcamaConfig
from fssbench_dcama.model import Dcama

_MODEL, _BACKBONE = "model.", "feature_extractor."
# The text before one of these is the prefix of a wrapper module.
_MARKS = (_BACKBONE, f"{_MODEL}DCAMA_blocks.")


def import_official(tensors: Mapping[str, Tensor], backbone: BackboneInfo) -> Imported:
    """Map the authors' tensor names to ours; their files contain the backbone, too.

    Args:
        tensors: tensors of the authors' file, by name.
        backbone: names and shapes of the encoder's features.
    """
    ours = official_names(Dcama(config=DcamaConfig(), backbone=backbone))
    prefix = next((n.partition(mark)[0] for mark in _MARKS for n in tensors if mark in n), "")
    weights: dict[str, Tensor] = {}
    encoder: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = full.removeprefix(prefix)
        if name.startswith(_BACKBONE):
            encoder[name.removeprefix(_BACKBONE)] = tensor
        elif not name.startswith(f"{_MODEL}pe."):  # the table of positions is computed
            weights[ours.get(name, full)] = tensor
    return Imported(
        weights=weights, backbone=encoder, names={own: name for name, own in ours.items()}
    )


def official_names(matcher: Dcama) -> dict[str, str]:
    """Return our tensor names by the authors' names.

    The authors number scales from fine to coarse for attention and from coarse to fine for
    convolutions. Within a block of convolutions, the order is the same.
    """
    parts = {}
    for name in matcher.attention:
        index = (8, 16, 32).index(int(name.partition("-")[0]))
        for linear, ours in enumerate(("query", "key")):
            parts[f"attention.{name}.{ours}"] = f"DCAMA_blocks.{index}.linears.{linear}"
    parts |= {f"prepare.{stride}": f"conv{n}" for n, stride in enumerate((32, 16, 8), start=1)}
    parts |= {f"integrate.{stride}": f"conv{n}" for n, stride in enumerate((16, 8), start=4)}
    parts |= {f"mixer.{block}": f"mixer{block + 1}" for block in range(3)}
    return {
        f"{_MODEL}{theirs}{own.removeprefix(ours)}": own
        for own in matcher.state_dict()
        for ours, theirs in parts.items()
        if own.startswith(f"{ours}.")
    }
