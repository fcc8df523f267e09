"""Features on disk, shared by later runs and other processes, and verified when read."""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from torch import Tensor

from fssbench._version import __version__
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.inference.pipeline import Features, Pipeline

MAGIC = b"fssbench features 1\n"
SUFFIX = ".features"
_ALIGNED = 64
_LOCK = ".lock"
_EVICTION_TARGET = 0.9
"""Eviction stops at this share of the size limit."""

log = logging.getLogger(__name__)


class FeatureFiles:
    """A folder with one feature file for each encoded image.

    The name of a file is a hash of the encoder's own weights, the request, the precision, the
    versions of the libraries, and the encoded pixels. A changed image or another mask gives another
    name, so a stale file is never read. A file is written to a temporary name and renamed, never
    changed afterwards, and memory-mapped for reading, so processes share it. It contains a CRC-32
    of its content; a damaged file is removed and computed anew. When the total size exceeds the
    limit, the least recently used files are removed.

    Args:
        folder: folder of the files, created if it is missing.
        pipeline: matcher and backbone that compute the features.
        limit: total size limit in bytes.

    Raises:
        FssbenchError: the folder cannot be written.
    """

    def __init__(self, folder: Path, pipeline: Pipeline, limit: int) -> None:
        self.folder = folder
        self.limit = limit
        self._identity = json.dumps(identity_of(pipeline), sort_keys=True).encode()
        self._writable = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._size = sum(size for _, size, _ in self._files())
        except OSError as error:
            raise FssbenchError(
                f"--cache-dir {folder}: cannot use this folder: {error.strerror or error}; choose "
                "another one"
            ) from error

    def path(self, image: Tensor, keep: Tensor | None) -> Path:
        """Return the path of the feature file of an encoder's input.

        Args:
            image: uint8 (3, S, S).
            keep: uint8 (S, S) mask of the visible part, or None.
        """
        digest = hashlib.blake2b(self._identity, digest_size=16)
        for plane in (image, keep):
            digest.update(b"-" if plane is None else plane.contiguous().numpy().tobytes())
        return self.folder / f"{digest.hexdigest()}{SUFFIX}"

    def read(self, image: Tensor, keep: Tensor | None) -> dict[str, Tensor] | None:
        """Return the features of an encoder's input, on the CPU; None if missing or damaged."""
        path = self.path(image, keep)
        try:
            with path.open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            os.utime(path)
        except (OSError, ValueError):  # missing, empty, or removed by another process
            return None
        try:
            return _unpacked(content)
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            log.warning("%s: damaged (%s); computed anew", path, error)
            path.unlink(missing_ok=True)
            return None

    def write(self, image: Tensor, keep: Tensor | None, features: Features) -> None:
        """Write a feature file; if the folder is not writable, warn once and write no more."""
        if not self._writable:
            return
        path = self.path(image, keep)
        content = _packed(features)
        if len(content) > self.limit or path.exists():
            return
        if self._size + len(content) > self.limit:
            self._make_room(len(content))
        try:
            write_atomically(path, content, flush=False)
        except FssbenchError as error:
            self._writable = False
            log.warning("%s; features are cached in memory only", error)
            return
        self._size += len(content)

    def _make_room(self, size: int) -> None:
        """Remove the least recently used files; one process at a time."""
        try:
            with filelock.FileLock(self.folder / _LOCK):
                files = sorted(self._files())
                total = sum(each for _, each, _ in files)
                for _, each, path in files:
                    if total + size <= _EVICTION_TARGET * self.limit:
                        break
                    path.unlink(missing_ok=True)
                    total -= each
                self._size = total
        except (OSError, NotImplementedError) as error:
            self._writable = False
            log.warning("%s: %s; features are cached in memory only", self.folder, error)

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return (time of last use, bytes, path) of all files."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if SUFFIX in entry.name:  # includes temporary files of processes that died
                    try:
                        status = entry.stat()
                    except FileNotFoundError:  # evicted by another process
                        continue
                    found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found


def identity_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return everything except the image that features depend on, as JSON values."""
    backbone, request = pipeline.backbone, pipeline.request
    weights = hashlib.blake2b(digest_size=16)
    # Includes buffers that are in no checkpoint, such as the mean colour of the normalisation.
    for name, tensor in sorted([*backbone.named_parameters(), *backbone.named_buffers()]):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(_bytes_of(tensor))
    return {
        "backbone": [backbone.info.name, type(backbone).__qualname__],
        "weights": weights.hexdigest(),
        "layers": list(request.layers),
        "size": request.size,
        "precision": pipeline.precision,
        "rounded": pipeline.half,
        "encoded_at_once": pipeline.encode_batch,
        "device": pipeline.device.type,
        "versions": [__version__, torch.__version__],
    }


def _bytes_of(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()


def _packed(features: Features) -> bytes:
    layers, parts, offset = [], [], 0
    for name, maps in features.items():
        data = _bytes_of(maps)
        dtype = str(maps.dtype).removeprefix("torch.")
        layers.append({"name": name, "dtype": dtype, "shape": list(maps.shape), "start": offset})
        data += bytes(-len(data) % _ALIGNED)
        parts.append(data)
        offset += len(data)
    header = json.dumps(layers).encode()
    header += b" " * (-(len(MAGIC) + 16 + len(header)) % _ALIGNED)
    body = b"".join([f"{len(header):08x}".encode(), header, *parts])
    return b"".join([MAGIC, f"{zlib.crc32(body):08x}".encode(), body])


def _unpacked(content: mmap.mmap) -> dict[str, Tensor]:
    start = len(MAGIC)
    if content[:start] != MAGIC:
        raise ValueError("not a feature file")
    view = memoryview(content)
    if zlib.crc32(view[start + 8 :]) != int(content[start : start + 8], 16):
        raise ValueError("wrong checksum")
    length = int(content[start + 8 : start + 16], 16)
    layers: list[Mapping[str, Any]] = json.loads(content[start + 16 : start + 16 + length])
    found = {}
    for layer in layers:
        shape = layer["shape"]
        found[layer["name"]] = torch.frombuffer(
            view,
            dtype=getattr(torch, layer["dtype"]),
            count=int(torch.Size(shape).numel()),
            offset=start + 16 + length + layer["start"],
        ).view(shape)
    return found
