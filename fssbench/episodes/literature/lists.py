"""Authors' list files, which protocols of the literature read instead of listing a dataset."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeVar

import attrs

from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within, text_lines
from fssbench.registry import load_lists
from fssbench.specs import ProtocolSpec

T = TypeVar("T")

MOST_BYTES = 64 * MIB
"""Limit of the size of a list file; HSNet's pickles of COCO take 8 MiB."""


@attrs.frozen(kw_only=True)
class Listed:
    """Content of the list files of one fold, in their order, as ids of the dataset.

    Attributes:
        lists: ids of the images of each class id.
        queries: (class id, image id) of the queries in order; the class is None if the files list
            images alone and the sampler draws the class. Empty if the order is drawn too.
    """

    lists: Mapping[int, Sequence[str]]
    queries: Sequence[tuple[int | None, str]] = ()


def read_listed(protocol: ProtocolSpec, folder: Path, dataset: Dataset, fold: int) -> Listed:
    """Read a protocol's list files, and check that the dataset has the listed images.

    Args:
        protocol: protocol, whose `lists` is a function ``reader(folder, dataset, fold) -> Listed``.
        folder: folder of the files.
        dataset: dataset of the listed images and classes.
        fold: fold of the lists.

    Raises:
        FssbenchError: the folder, a file or a line is wrong, or the dataset lacks a listed image.
    """
    dataset.check_split(protocol.split)
    dataset.prepare(protocol.split)
    if not folder.is_dir():
        raise FssbenchError(f"--lists {folder}: no such folder")
    listed: Listed = load_lists(protocol)(folder, dataset, fold)
    named = {image for _, image in listed.queries}.union(*listed.lists.values())
    if absent := named.difference(dataset.image_ids(protocol.split)):
        raise FssbenchError(
            f"--lists {folder}: {len(absent)} listed images, {min(absent)} for one, are not in "
            f"split {protocol.split!r} of {dataset.name}; the lists belong to other data"
        )
    return listed


def find_list(folder: Path, root: str, name: str) -> Path:
    """Return the path of a list file in the authors' folder `root`, or in one that contains it.

    Raises:
        FssbenchError: there is no such file.
    """
    for path in (folder / name, folder / root / name):
        if path.is_file():
            return path
    raise FssbenchError(f"--lists {folder}: no file {name} or {root}/{name} in it")


def check_complete(path: Path, dataset: Dataset, lists: Mapping[int, Sequence[str]]) -> None:
    """Raise an `FssbenchError` if a list file has no image of some class."""
    if empty := [dataset.classes[class_id] for class_id, images in lists.items() if not images]:
        raise FssbenchError(f"{path}: lists no image of {', '.join(empty)}")


def cycled(queries: Sequence[T], count: int | None) -> Iterator[T]:
    """Return an iterator over `count` queries, cyclically; None for each query once."""
    return islice(cycle(queries), len(queries) if count is None else count)


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number from 1, text) of the lines that are not empty.

    Raises:
        FssbenchError: the file cannot be read, is not text, is empty, or is too large.
    """
    try:
        lines = text_lines(read_within(path, MOST_BYTES), errors="strict")
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise FssbenchError(f"{path}: not a text file of one entry a line: {error}") from error
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise FssbenchError(f"{path}: lists nothing")
    return found


def read_pickle(path: Path) -> dict[int, list[str]]:
    """Read a pickled dictionary of lists of strings by number, without executing anything.

    A pickle can request a call of any function. This reader resolves no names, so it can only
    produce the built-in types of the format (dict, list, str, int and others). Its memory is
    bounded too: indices of the memo are checked, and so is the total length of repeated lists.

    Raises:
        FssbenchError: the file cannot be read, is no pickle, requests any object, or holds
            something other than such a dictionary.
    """
    try:
        data = read_within(path, MOST_BYTES)
        _check_memo(data)
        found = _Unpickler(io.BytesIO(data)).load()
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except _ForbiddenError as error:
        raise FssbenchError(
            f"{path}: asks for {error}, which no list needs; nothing of it was run; "
            "get the file from its authors again"
        ) from error
    except Exception as error:  # broken pickles raise errors of any type
        raise FssbenchError(f"{path}: is no pickle, or a broken one") from error
    if not (
        type(found) is dict
        and all(type(key) is int and type(names) is list for key, names in found.items())
        # A pickle can repeat one list under many keys.
        and sum(map(len, found.values())) <= len(data)
        and all(type(name) is str and name for names in found.values() for name in names)
    ):
        raise FssbenchError(f"{path}: must hold a dictionary: class number to list of image names")
    return dict(found)


def image_id(name: str) -> str:
    """Return the dataset's id of a listed path.

    ``JPEGImages/2007_000033.jpg`` is ``2007_000033``; ``val2014/COCO_val2014_000000000042.jpg`` is
    ``000000000042``.
    """
    stem = PurePosixPath(name).stem
    official = re.fullmatch(r"COCO_[a-z]+\d{4}_(\d{12})", stem)
    return official[1] if official else stem


def _check_memo(data: bytes) -> None:
    """Raise a `ValueError` for an index of the memo that no pickle of this length needs.

    The memo is a table as long as its highest index, so six bytes could allocate 32 GiB.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and (argument or 0) > len(data):
            raise ValueError("a memo that is larger than the pickle")


class _ForbiddenError(Exception):
    """A pickle requests more than values of built-in types."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _ForbiddenError("an object outside of the file")
