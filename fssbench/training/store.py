"""Features of images on disk, shared by later trainings and verified when read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fssbench.data.cache import cache_folder
from fssbench.errors import FssbenchError
from fssbench.files import cannot_write, write_atomically

log = logging.getLogger(__name__)

FEATURES_FILE, CHECKS_FILE, IDENTITY_FILE = "features.f16", "checks.u64", "identity.json"
_WRITTEN = 1 << 32  # flag of a check, above the 32 bits of the checksum


class FeatureStore:
    """One float16 map for each image of a list, in a folder of the cache.

    ``features.f16`` is a memory-mapped table of rows of equal length, in which missing rows occupy
    no space on most file systems. ``checks.u64`` contains for each row 0, or a flag and the CRC-32
    of its bytes. A row is written before its check, so a truncated row, after a kill or on a full
    disk, fails its check and counts as missing. Several processes may write, because they write
    the same features.

    Args:
        identity: everything that the features depend on, as JSON values; the ids are added to it.
        ids: unique ids of the images.
        shape: (C, h, w) of a map.
        folder: parent folder of stores; None for ``features-1`` in the cache folder.

    Raises:
        FssbenchError: the folder cannot be written.
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        ids: Sequence[str],
        shape: tuple[int, int, int],
        folder: Path | None = None,
    ) -> None:
        listed = hashlib.sha256("\0".join(ids).encode("utf-8", "surrogateescape")).hexdigest()
        whole = {**identity, "images": len(ids), "ids": listed, "shape": list(shape)}
        text = json.dumps(whole, sort_keys=True, indent=2)
        key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = (folder or cache_folder() / "features-1") / key
        self.shape = shape
        self._rows = {image: row for row, image in enumerate(ids)}
        if len(self._rows) < len(ids):
            raise FssbenchError("features on disk: an image is listed twice")
        self._length = 2 * int(np.prod(shape))
        self._features = self.folder / FEATURES_FILE
        self._checks = self.folder / CHECKS_FILE
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, size in ((self._features, self._length), (self._checks, 8)):
                with path.open("ab") as file:
                    if file.tell() < size * len(ids):
                        file.truncate(size * len(ids))
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        write_atomically(self.folder / IDENTITY_FILE, (text + "\n").encode())

    def __len__(self) -> int:
        """Return the number of images with features."""
        return int((np.fromfile(self._checks, np.uint64) != 0).sum())

    def read(self, image_id: str) -> Tensor | None:
        """Return the features of an image, float16 (C, h, w); None if missing or damaged."""
        row = self._rows[image_id]
        check = np.fromfile(self._checks, np.uint64, count=1, offset=8 * row)
        if not len(check) or not check[0]:
            return None
        mapped = np.memmap(
            self._features, np.uint8, mode="r", offset=row * self._length, shape=self._length
        )
        stored = mapped.tobytes()
        if zlib.crc32(stored) | _WRITTEN != int(check[0]):
            log.warning("%s: features of %s are damaged and computed anew", self.folder, image_id)
            return None
        values = np.frombuffer(stored, np.float16).reshape(self.shape)
        return torch.from_numpy(values.copy())

    def write(self, image_id: str, features: Tensor) -> None:
        """Write an image's features, (C, h, w), rounded to float16.

        Raises:
            FssbenchError: wrong shape, a value that is not finite in float16, or a full disk.
        """
        values = features.detach().to("cpu", torch.float16).numpy()
        if values.shape != self.shape or not np.isfinite(values).all():
            raise FssbenchError(
                f"features of {image_id}: shape {values.shape} for {self.shape}, or values that "
                "float16 cannot hold"
            )
        row, stored = self._rows[image_id], values.tobytes()
        check = np.uint64(zlib.crc32(stored) | _WRITTEN).tobytes()
        try:
            _put(self._features, stored, row * self._length)
            _put(self._checks, check, 8 * row)
        except OSError as error:
            raise cannot_write(self.folder, error) from error


def _put(path: Path, data: bytes, offset: int) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        while data:
            written = os.pwrite(handle, data, offset)
            data, offset = data[written:], offset + written
    finally:
        os.close(handle)
