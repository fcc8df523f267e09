"""Safe parsing of untrusted weight files: no code execution, and bounded unpacked size."""

from __future__ import annotations

import mmap
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.lib import format as npy
from torch import Tensor

from fssbench.files import MIB

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".npz")
ROOM = 256 * MIB
"""Unpacked size in bytes that is allowed for any file."""
GROWTH = 16
"""Allowed ratio of unpacked size to file size; trained weights hardly compress."""
_ZIP = b"PK\x03\x04"
_ARRAY = b"\nbytearray\n"  # the name in a pickle that calls `bytearray(10**12)`


def parse(path: Path) -> Any:
    """Return the content of a weight file: tensors by name, perhaps in nested dictionaries.

    The sizes declared in its directory and its arrays are added up before anything is unpacked.

    Raises:
        ValueError: the file unpacks to much more than its own size, or declares data it lacks.
        Exception: any error of its parser, for damage or a pickle of more than plain values.
    """
    if path.suffix == ".safetensors":  # its parser compares all sizes with the file's
        return safetensors.torch.load_file(path, device="cpu")
    if path.suffix == ".npz":
        return _numpy(path)
    return _torch(path)


def check_size(path: Path, tensors: Iterable[Tensor]) -> None:
    """Raise a `ValueError` for sparse or meta tensors, or if they are too large for the file.

    A pickle can define a tensor of any shape that repeats a single number, or has no data.
    """
    size = 0
    for tensor in tensors:
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError("a tensor that is sparse or without values")
        size += tensor.numel() * tensor.element_size()
    _check(path, size)


def _check(path: Path, unpacked: int) -> None:
    own = path.stat().st_size
    if unpacked > max(ROOM, GROWTH * own):
        raise ValueError(
            f"a file of {own / MIB:.1f} MiB that would take {unpacked / MIB:.0f} MiB of memory"
        )


def _numpy(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        _check(path, sum(member.file_size for member in archive.infolist()))
        for member in archive.infolist():
            with archive.open(member) as file:
                if _declared(file) > member.file_size - file.tell():
                    raise ValueError(f"{member.filename[:40]!a} is shorter than its header says")
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _declared(file: Any) -> int:
    """Return the array size in bytes from a NumPy header; NumPy would allocate all of it."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"an array of version {version}, which plain numbers do not need")
    shape, _, dtype = readers[version](file)
    size: int = dtype.itemsize
    for length in shape:  # not with NumPy, whose integers overflow
        size *= length
    return size


def _torch(path: Path) -> Any:
    with path.open("rb") as file:
        if file.read(4) != _ZIP:  # format before torch 1.6: pickles, then the numbers
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _refuse_arrays(data.find(_ARRAY) >= 0)
            return torch.load(path, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("a compressed archive, which torch never writes")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("an archive whose members are larger than itself")
        if archive.testzip() is not None:  # torch writes checksums, but does not verify them
            raise ValueError("damaged: a checksum does not fit")
        pickles = (member for member in members if member.filename.endswith(".pkl"))
        _refuse_arrays(any(_ARRAY in archive.read(member) for member in pickles))
    # A memory-mapped storage cannot exceed the file's data, regardless of the pickle.
    return torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)


def _refuse_arrays(found: bool) -> None:
    if found:
        raise ValueError("a bytearray, which can allocate any size")
