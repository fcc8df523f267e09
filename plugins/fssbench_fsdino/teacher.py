"""SAM's image encoder as a teacher, with stored embeddings of whole images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor
from torch.nn import functional

import fssbench
from fssbench import Dataset, FeatureFiles, FssbenchError, Geometry, StageContext


class Teacher:
    """Embeddings of a frozen encoder's last layer, stored on disk at one grid.

    The teacher's input is the whole image at its own size (1024 pixels for SAM): resized to a
    square as for the student, or letterboxed as in SAM's code, where padding at the bottom or right
    has the mean colour; then the map of the image inside is cropped out. Either way it is averaged
    to the finest requested grid (37 x 37 at 518 pixels) of the whole image, so that positions
    correspond to the student's, and stored in float16, a third of the bytes; coarser stages average
    that map. An image is encoded on its first request; later and resumed stages read it from disk
    and do not run the teacher.

    Args:
        name: name of a registered backbone, e.g. ``sam-vit-h``.
        weights: ``pretrained``, ``random`` or a file.
        context: context of the stage.
        channels: channels of the student's embedding.
        grid: positions along a side of the stored maps.
        resize: teacher's input, ``squash`` or ``letterbox``.

    Raises:
        FssbenchError: the teacher's embedding has other channels, or its weights cannot be loaded.
    """

    def __init__(
        self, name: str, weights: str, context: StageContext, *, channels: int, grid: int,
        resize: Literal["squash", "letterbox"] = "squash",
    ) -> None:  # fmt: skip
        backbone = fssbench.backbone(name, weights)
        info, layer = backbone.info, backbone.info.last_layer
        if info.layers[layer].channels != channels:
            raise FssbenchError(
                f"teacher {info.name}: its layer {layer} has {info.layers[layer].channels} "
                f"channels, and the student's embedding {channels}; choose another teacher, or "
                f"the option width={info.layers[layer].channels}"
            )
        self.backbone = backbone
        self.grid = min(grid, info.image_size // info.layers[layer].stride)
        self._layer = layer
        self._dataset: Dataset = context.dataset
        self._geometry = Geometry(info.image_size, resize)
        self._stride = info.layers[layer].stride
        self.identity = {"teacher": info.name, "weights": attrs.asdict(backbone.weights)}
        self.files = FeatureFiles(
            backbone,
            {
                "layer": layer,
                "size": info.image_size,
                "resize": resize,
                "dataset": context.dataset.name,
                "fingerprint": context.dataset.fingerprint("train"),
                "grid": self.grid,
            },
        )

    def embeddings(self, ids: Sequence[str], device: torch.device) -> Tensor:
        """Return the embeddings of some images.

        Args:
            ids: ids of the images.
            device: device of the result, and of the teacher for missing embeddings.

        Returns:
            float32 (B, C, grid, grid).
        """
        return torch.stack([self._embedding(image, device).to(device) for image in ids]).float()

    @torch.no_grad()
    def _embedding(self, image: str, device: torch.device) -> Tensor:
        key = image.encode("utf-8", "surrogateescape")
        stored = self.files.read(key)
        if stored is not None:
            return stored[self._layer]
        original = self._dataset.image(image)
        height, width = self._geometry.content(*original.shape[-2:])
        picture = self._geometry.image(original).float() / 255
        # The encoder subtracts this colour: its padding is 0, as in SAM's code.
        for padding in (picture[:, height:], picture[:, :, width:]):
            padding[:] = self.backbone.mean.cpu()
        # One image at a time: an embedding must not depend on other images of a batch.
        found = self.backbone.to(device)(picture[None].to(device), (self._layer,))[self._layer]
        inside = found[..., : -(-height // self._stride), : -(-width // self._stride)]
        embedding = at_grid(inside.float(), self.grid)[0].half()
        if not embedding.isfinite().all():
            raise FssbenchError(
                f"teacher: embedding of {image} has values that float16 cannot hold"
            )
        self.files.write(key, {self._layer: embedding})
        return embedding


def at_grid(maps: Tensor, grid: int) -> Tensor:
    """Resize maps to a grid, averaging if it is coarser: (B, C, h, w) to (B, C, grid, grid)."""
    if maps.shape[-2:] == (grid, grid):
        return maps
    return functional.interpolate(
        maps, (grid, grid), mode="bilinear", align_corners=False, antialias=True
    )
