"""Reads the mask decoder of SAM's own checkpoint files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from fssbench import BackboneInfo, FssbenchError, Imported

if TYPE_CHECKING:
    from fssbench_fsdino.segmenter import Segmenter

# Our names of SAM's modules; what follows them is called the same.
_PARTS = {
    "mask_decoder.": "decoder.",
    "prompt_encoder.mask_downscaling.": "downscaling.",
    "prompt_encoder.pe_layer.": "positions.",
    "prompt_encoder.not_a_point_embed.": "initial.",
}


def from_sam(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What of SAM's tensors FS-DINO uses, by its own names.

    The image encoder, point and box embeddings and the embedding of "no mask" are left out.
    """
    found = {}
    for name, tensor in tensors.items():
        for theirs, ours in _PARTS.items():
            if name.startswith(theirs):
                found[ours + name.removeprefix(theirs)] = tensor
    return found


def load_sam(matcher: Segmenter, tensors: Mapping[str, Tensor], file: str) -> None:
    """Give a matcher SAM's decoder, mask downscaling and Gaussian matrix.

    Args:
        matcher: whose other parts stay as they are.
        tensors: of a checkpoint of SAM, whichever encoder it has.
        file: its name, for messages.

    Raises:
        FssbenchError: it is no such checkpoint, or the matcher has another width than SAM.
    """
    found = from_sam(tensors)
    own = {
        name: tensor
        for name, tensor in matcher.state_dict().items()
        if name.startswith(tuple(_PARTS.values()))
    }
    missing = sorted(own.keys() - found.keys())
    if missing:
        raise FssbenchError(
            f"{file}: this is no checkpoint of SAM: it has nothing for {missing[0]}; give "
            "sam_vit_h_4b8939.pth or another of segment_anything's"
        )
    for name, tensor in own.items():
        if found[name].shape != tensor.shape:
            raise FssbenchError(
                f"{file}: {name} is {tuple(found[name].shape)} in SAM and {tuple(tensor.shape)} "
                "here; leave the option width at 256"
            )
    matcher.load_state_dict({name: found[name] for name in own}, strict=False)


def import_sam(tensors: Mapping[str, Tensor], backbone: BackboneInfo) -> Imported:
    """A checkpoint of FS-DINO with SAM's decoder; all other parts are random, and untrained.

    Its authors have published no weights, so this is what there is to import: a start for
    ``--init`` that later stages hand on.

    Args:
        tensors: of SAM's file, by name.
        backbone: names and shapes of the encoder's features.
    """
    from fssbench_fsdino.config import FsDinoConfig
    from fssbench_fsdino.model import FsDino

    matcher = FsDino(config=FsDinoConfig(), backbone=backbone)
    load_sam(matcher, tensors, "SAM's file")
    return Imported(weights=matcher.state_dict())
