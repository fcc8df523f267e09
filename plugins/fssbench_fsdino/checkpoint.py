"""Import of the mask decoder from SAM's checkpoint files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from fssbench import BackboneInfo, FssbenchError, Imported

if TYPE_CHECKING:
    from fssbench_fsdino.segmenter import Segmenter

# Prefixes in SAM's files and here; the rest of a name is the same in both.
_PARTS = {
    "mask_decoder.": "decoder.",
    "prompt_encoder.mask_downscaling.": "downscaling.",
    "prompt_encoder.pe_layer.": "positions.",
    "prompt_encoder.not_a_point_embed.": "initial.",
}


def from_sam(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of SAM that FS-DINO uses, by FS-DINO's names.

    The image encoder, point and box embeddings and the embedding of "no mask" are left out.
    """
    return {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in tensors.items()
        for theirs, ours in _PARTS.items()
        if name.startswith(theirs)
    }


def load_sam(matcher: Segmenter, tensors: Mapping[str, Tensor], file: str) -> None:
    """Load SAM's decoder, mask downscaling and Gaussian matrix into a matcher.

    Args:
        matcher: matcher to change; its other modules keep their weights.
        tensors: tensors of a SAM checkpoint with any image encoder.
        file: name of the file, for messages.

    Raises:
        FssbenchError: the file is not a SAM checkpoint, or the matcher has another width than SAM.
    """
    found = from_sam(tensors)
    prefixes = tuple(_PARTS.values())
    own = {n: tensor for n, tensor in matcher.state_dict().items() if n.startswith(prefixes)}
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
    """Return a checkpoint of FS-DINO with SAM's decoder and random weights elsewhere.

    The authors have published no weights; this checkpoint is a start for ``--init``, and later
    stages pass the decoder on.

    Args:
        tensors: tensors of SAM's file, by name.
        backbone: names and shapes of the encoder's features.
    """
    from fssbench_fsdino.config import FsDinoConfig
    from fssbench_fsdino.model import FsDino

    matcher = FsDino(config=FsDinoConfig(), backbone=backbone)
    load_sam(matcher, tensors, "SAM's file")
    return Imported(weights=matcher.state_dict())
