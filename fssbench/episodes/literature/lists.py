"""Authors' list files: what protocols of the literature read instead of making lists themselves."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import attrs

from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within

MOST_BYTES = 64 * MIB
"""No list is larger; HSNet's pickles of COCO take eight."""


@attrs.frozen(kw_only=True)
class Listed:
    """What the list files of one fold say, in their own order, with ids of the dataset.

    Attributes:
        lists: for each class id the ids of its images.
        queries: (class id, image id) in the order in which queries are asked; the class is None
            where a list names images alone and the sampler draws the class. Empty where the order
            is drawn too.
    """

    lists: Mapping[int, Sequence[str]]
    queries: Sequence[tuple[int | None, str]] = ()


def read_listed(reader: Any, folder: Path, dataset: Dataset, split: str, fold: int) -> Listed:
    """Call a protocol's reader, and check that the dataset has what the lists name.

    Args:
        reader: what `ProtocolSpec.lists` names, ``reader(folder, dataset, fold) -> Listed``.
        folder: what ``--lists`` named.
        dataset: whose images and classes the lists name.
        split: the split that the images must be of.
        fold: whose lists.

    Raises:
        FssbenchError: the folder, a file or a line is not as it must be, or the dataset lacks a
            listed image.
    """
    if not folder.is_dir():
        raise FssbenchError(f"--lists {folder}: no such folder")
    listed: Listed = reader(folder, dataset, fold)
    known = set(dataset.image_ids(split))
    named = {image for images in listed.lists.values() for image in images}
    absent = (named | {image for _, image in listed.queries}) - known
    if absent:
        raise FssbenchError(
            f"--lists {folder}: {len(absent)} listed images, {min(absent)} for one, are not in "
            f"split {split!r} of {dataset.name}; the lists belong to other data"
        )
    return listed


def find_list(folder: Path, *places: str) -> Path:
    """The first of some paths below a folder that is a file.

    Raises:
        FssbenchError: none is.
    """
    for place in places:
        if (folder / place).is_file():
            return folder / place
    raise FssbenchError(f"--lists {folder}: no file {' or '.join(places)} in it")


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of a list's lines that are not empty.

    Raises:
        FssbenchError: the file cannot be read, is no text, is empty, or is too large.
    """
    try:
        lines = read_within(path, MOST_BYTES).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FssbenchError(f"{path}: is no text; a list has one entry a line") from error
    except ValueError as error:
        raise FssbenchError(f"{path}: is no list: {error}") from error
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise FssbenchError(f"{path}: lists nothing")
    return found


def read_pickle(path: Path) -> dict[int, list[str]]:
    """A pickled dictionary of lists of texts by number, read without running anything.

    A pickle may ask for any function to be called. This reader looks nothing up, so that only what
    the format itself can spell (dict, list, str, int and such) comes out of it. Nor can a few bytes
    ask for much memory: places in the pickle's memo are counted, and the same list may not stand
    for many.

    Raises:
        FssbenchError: the file cannot be read, is no pickle, asks for anything more, or holds
            something else than such a dictionary.
    """
    try:
        data = read_within(path, MOST_BYTES)
        _check_memo(data)
        found = _Unpickler(io.BytesIO(data)).load()
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except _ForbiddenError as error:
        raise FssbenchError(
            f"{path}: asks for {error}, which no list needs; nothing of it was run. "
            "Get the file from its authors again"
        ) from error
    except Exception as error:  # broken pickles raise whatever the bytes happen to mean
        raise FssbenchError(f"{path}: is no pickle, or a broken one") from error
    whole = (
        type(found) is dict
        and _no_larger(found, len(data))
        and all(
            type(key) is int
            and type(names) is list
            and all(type(name) is str and name for name in names)
            for key, names in found.items()
        )
    )
    if not whole:
        raise FssbenchError(f"{path}: must hold a dictionary: class number to list of image names")
    return dict(found)


def image_id(name: str) -> str:
    """The dataset's id of a path in a list.

    ``JPEGImages/2007_000033.jpg`` is ``2007_000033``; ``val2014/COCO_val2014_000000000042.jpg`` is
    ``000000000042``.
    """
    stem = PurePosixPath(name).stem
    official = re.fullmatch(r"COCO_[a-z]+\d{4}_(\d{12})", stem)
    return official[1] if official else stem


def _check_memo(data: bytes) -> None:
    """Raise a `ValueError` for a memo with a place that no pickle of this length needs.

    The memo is a table as long as its highest place, so that six bytes could ask for 32 GiB.
    """
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and (argument or 0) > len(data):
            raise ValueError("a memo that is larger than the pickle")


def _no_larger(found: dict[Any, Any], size: int) -> bool:
    """Whether all lists together have no more items than the pickle has bytes."""
    return sum(len(names) for names in found.values() if type(names) is list) <= size


class _ForbiddenError(Exception):
    """A pickle asked for more than plain values."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise _ForbiddenError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _ForbiddenError("an object outside of the file")
