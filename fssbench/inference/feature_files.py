"""Features on disk, shared by later runs and other processes, and verified when read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fssbench._version import __version__
from fssbench.backbones.backbone import Backbone
from fssbench.data.cache import cache_folder
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.inference.pipeline import Features, Pipeline
from fssbench.runtime.code import code_of, identities
from fssbench.runtime.locks import Lock

SUFFIX = ".safetensors"
_LOCK = ".lock"
_EVICTION_TARGET = 0.9
"""Eviction stops at this share of the size limit."""

log = logging.getLogger(__name__)


class FeatureFiles:
    """A folder with one safetensors file for each encoded image.

    The name of a file is a hash of the identity and of a key, so a file of other features is never
    read. A file is written to a temporary name and renamed, never changed afterwards, and
    memory-mapped for reading, so processes share it. Its metadata hold a CRC-32 of its tensors; a
    damaged file is removed and computed anew. When the total size exceeds the limit, the least
    recently used files are removed.

    Args:
        backbone: encoder of the features; its weights and code are part of the identity.
        identity: everything else, except the key, that the features depend on, as JSON values.
        folder: folder of the files, created if it is missing; None for ``features`` in the cache
            folder.
        limit: total size limit in bytes; None for no limit.
        name: name of the encoder; "" for that of a `Backbone`.

    Raises:
        FssbenchError: the folder cannot be written.
    """

    def __init__(
        self,
        backbone: nn.Module,
        identity: Mapping[str, Any],
        folder: Path | None = None,
        limit: int | None = None,
        *,
        name: str = "",
    ) -> None:
        self.folder = folder or cache_folder() / "features"
        self.limit = limit
        if isinstance(backbone, Backbone):
            name = name or backbone.info.name
        whole = {**_encoder_identity(name, backbone), **identity}
        self._identity = json.dumps(whole, sort_keys=True).encode()
        self._writable = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._size = sum(size for _, size, _ in self._files()) if limit else 0
        except OSError as error:
            raise FssbenchError(
                f"features in {self.folder}: cannot use this folder: {error.strerror or error}; "
                "choose another one (--cache-dir)"
            ) from error

    def path(self, key: bytes) -> Path:
        """Return the path of a feature file."""
        digest = hashlib.blake2b(self._identity, digest_size=16)
        digest.update(key)
        return self.folder / f"{digest.hexdigest()}{SUFFIX}"

    def read(self, key: bytes) -> dict[str, Tensor] | None:
        """Return the features of a key, on the CPU; None if missing or damaged."""
        path = self.path(key)
        try:
            os.utime(path)
            with safe_open(path, "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                expected = (file.metadata() or {}).get("crc32")
            if _checksum(found) != expected:
                raise ValueError("wrong checksum")
        except FileNotFoundError:  # also when removed by another process
            return None
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            log.warning("%s: damaged (%s); computed anew", path, error)
            path.unlink(missing_ok=True)
            return None
        return found

    def write(self, key: bytes, features: Features) -> None:
        """Write a feature file; if the folder is not writable, warn once and write no more."""
        path = self.path(key)
        if not self._writable or path.exists():
            return
        plain = {name: maps.detach().cpu().contiguous() for name, maps in features.items()}
        content = save(plain, {"crc32": _checksum(plain)})
        size, limit = len(content), self.limit or math.inf
        if size > limit:
            return
        try:
            if self._size + size > limit:
                self._make_room(_EVICTION_TARGET * limit - size)
            write_atomically(path, content, flush=False)
        except (FssbenchError, OSError) as error:
            self._writable = False
            log.warning("%s: %s; features are cached in memory only", self.folder, error)
            return
        self._size += size

    def _make_room(self, target: float) -> None:
        """Remove the least recently used files down to a size; one process at a time."""
        with Lock(self.folder / _LOCK, "cache", timeout=math.inf):
            files = sorted(self._files())
            self._size = sum(size for _, size, _ in files)
            for _, size, path in files:
                if self._size <= target:
                    break
                path.unlink(missing_ok=True)
                self._size -= size

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return (time of last use, bytes, path) of all files."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if SUFFIX in entry.name:  # includes temporary files of processes that died
                    with contextlib.suppress(FileNotFoundError):  # evicted by another process
                        status = entry.stat()
                        found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found


def identity_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return everything except encoder and image that features depend on, as JSON values."""
    request = pipeline.request
    return {
        "layers": list(request.layers),
        "size": request.size,
        "precision": pipeline.precision,
        "rounded": pipeline.half,
        "encoded_at_once": pipeline.encode_batch,
        "device": pipeline.device.type,
    }


def _encoder_identity(name: str, backbone: nn.Module) -> dict[str, Any]:
    weights = hashlib.blake2b(digest_size=16)
    # Includes buffers that are in no checkpoint, such as the mean colour of the normalisation.
    for key, tensor in sorted([*backbone.named_parameters(), *backbone.named_buffers()]):
        weights.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(_bytes_of(tensor))
    return {
        "backbone": [name, type(backbone).__qualname__],
        "weights": weights.hexdigest(),
        "code": identities(code_of(backbone.modules())),
        "versions": [__version__, torch.__version__],
    }


def pixels_key(image: Tensor, keep: Tensor | None) -> bytes:
    """Return the key of an encoder's input.

    Args:
        image: uint8 (3, S, S).
        keep: uint8 (S, S) mask of the visible part, or None.
    """
    return b"".join(b"-" if x is None else x.contiguous().numpy().tobytes() for x in (image, keep))


def _checksum(features: Features) -> str:
    """Return the CRC-32 of names, dtypes, shapes and values."""
    total = 0
    for name, maps in sorted(features.items()):
        total = zlib.crc32(f"{name} {maps.dtype} {tuple(maps.shape)}".encode(), total)
        total = zlib.crc32(_bytes_of(maps), total)
    return f"{total:08x}"


def _bytes_of(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data
