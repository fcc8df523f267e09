"""HSNet's lists and episodes (Min, Kang, Cho, ICCV 2021), as its code draws them.

DCAMA, VAT, GF-SAM and Matcher use the same lists and draws; PATNet and INSID3 have HSNet's draws.
HSNet draws from NumPy's global legacy generator, whose stream NumPy has frozen. Here a private
generator has the same seed and the same calls, so that a method that draws random numbers cannot
change the episodes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy

from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.literature.lists import (
    Listed,
    check_complete,
    cycled,
    find_list,
    image_id,
    read_lines,
    read_pickle,
)
from fssbench.episodes.sampler import Pool
from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)

T = TypeVar("T")

ROOT = "data/splits"
"""HSNet's folder of list files."""

PASCAL_PAIRS = (346, 451, 725, 346)
"""Numbers of (image, class) pairs in HSNet's own validation lists of PASCAL-5i, by fold."""

ISAID_PAIRS = (3108, 3657, 3298)
"""Numbers of (tile, class) pairs in the validation lists of iSAID-5i, by fold: the numbers of
episodes in GF-SAM's logs (ANDYZAQ/GF-SAM, ``outputs/isaid/fold<N>.txt``)."""

COCO_PAIRS = (35783, 17912, 14563, 14315)
"""Numbers of (image, class) pairs in HSNet's own validation lists of COCO-20i, by fold."""

FSS_CLASSES = 240
FSS_IMAGES = tuple(str(number) for number in range(1, 11))
"""Names of the images that HSNet assumes for each class of FSS-1000."""


# --- lists ----------------------------------------------------------------------------------------


def pascal_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """Read ``pascal/val/fold<N>.txt``: lines ``<image id>__<class number from 01>``, in order.

    Args:
        folder: HSNet's folder ``data/splits``, or the folder that contains ``data/splits``.
        dataset: PASCAL-5i.
        fold: fold N.

    Raises:
        FssbenchError: the file is missing, a line is no such pair or of another fold, or a class of
            the fold has no line.
    """
    path = find_list(folder, ROOT, f"pascal/val/fold{fold}.txt")
    return _pairs(path, dataset, fold, PASCAL_PAIRS)


def isaid_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """Read ``val/fold<N>.txt`` of iSAID-5i: lines ``<tile>__<class number from 1>``, in order.

    Args:
        folder: the folder ``splits`` of INSID3's ``docs/data.md``, or the folder that contains it.
        dataset: iSAID-5i.
        fold: fold N.

    Raises:
        FssbenchError: as `pascal_lists`.
    """
    path = find_list(folder, "splits", f"val/fold{fold}.txt")
    return _pairs(path, dataset, fold, ISAID_PAIRS, "val/")


def _pairs(
    path: Path, dataset: Dataset, fold: int, official: Sequence[int], prefix: str = ""
) -> Listed:
    """Read lines ``<name>__<class number from 1>``; an image id is the prefix and the name."""
    lists: dict[int, list[str]] = {class_id: [] for class_id in dataset.fold_classes(fold)}
    queries = []
    for number, line in read_lines(path):
        pair = re.fullmatch(r"(\S+?)__(\d{1,3})", line)
        if pair is None:
            raise FssbenchError(
                f"{path}, line {number}: {line[:40]!r} is not <image id>__<class number>"
            )
        class_id = int(pair[2]) - 1
        if class_id not in lists:
            raise FssbenchError(
                f"{path}, line {number}: class number {pair[2]} is not in fold {fold}, which has "
                f"{min(lists) + 1} to {max(lists) + 1}"
            )
        lists[class_id].append(prefix + pair[1])
        queries.append((class_id, prefix + pair[1]))
    check_complete(path, dataset, lists)
    _warn_unless(path, len(queries), official[fold], "pairs")
    return Listed(lists=lists, queries=queries)


def coco_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """Read ``coco/val/fold<N>.pkl``: a pickled dictionary, class id to image paths.

    Args:
        folder: HSNet's folder ``data/splits``, or the folder that contains ``data/splits``.
        dataset: COCO-20i of 2014.
        fold: fold N.

    Raises:
        FssbenchError: the file is missing, it is no such dictionary (`read_pickle` executes
            nothing), or a class of the fold has no image.
    """
    path = find_list(folder, ROOT, f"coco/val/fold{fold}.pkl")
    found = read_pickle(path)
    lists = {c: [image_id(name) for name in found.get(c, [])] for c in dataset.fold_classes(fold)}
    check_complete(path, dataset, lists)
    _warn_unless(path, sum(map(len, lists.values())), COCO_PAIRS[fold], "pairs")
    return Listed(lists=lists)


def fss_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """Read ``fss/test.txt``, one class name a line, and list the ten images of each class.

    Queries are in the order of HSNet's sorted paths: classes by name, and 10 between 1 and 2.

    Args:
        folder: HSNet's folder ``data/splits``, or the folder that contains ``data/splits``.
        dataset: FSS-1000.
        fold: fold 0.

    Raises:
        FssbenchError: the file is missing, or a line is no test class or repeats one.
    """
    path = find_list(folder, ROOT, "fss/test.txt")
    novel = {dataset.classes[class_id]: class_id for class_id in dataset.fold_classes(fold)}
    lists: dict[int, list[str]] = {}
    for number, name in read_lines(path):
        if name not in novel:
            raise FssbenchError(f"{path}, line {number}: {name[:40]!r} is no test class")
        if novel[name] in lists:
            raise FssbenchError(f"{path}, line {number}: lists {name} again")
        lists[novel[name]] = [f"{name}/{image}" for image in FSS_IMAGES]
    _warn_unless(path, len(lists), FSS_CLASSES, "classes")
    by_name = sorted(lists, key=lambda class_id: dataset.classes[class_id])
    queries = [(c, image) for c in by_name for image in sorted(lists[c])]
    return Listed(lists=dict(sorted(lists.items())), queries=queries)


# --- episodes -------------------------------------------------------------------------------------


def in_list_order(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Take the listed queries in order, cyclically: HSNet on PASCAL-5i and FSS-1000.

    Supports are drawn from the class's list independently of each other, so an image may repeat; an
    image that is the query is drawn again.

    Args:
        pool: pool with `Pool.queries`.
        episodes: number of episodes; None for one for each query.
        shots: number of supports K.
        draw: unused; the generator is HSNet's, with the manifest's seed.

    Raises:
        FssbenchError: a class lists a single image, or NumPy does not accept the seed.
    """
    return _episodes(pool, _generator(pool), cycled(pool.queries, episodes), shots)


def class_uniform(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw a class, and one of its images as the query, uniformly: HSNet on COCO-20i.

    Args:
        pool: class lists.
        episodes: number of episodes.
        shots: number of supports K, which are drawn as in `in_list_order`.
        draw: unused; the generator is HSNet's, with the manifest's seed.

    Raises:
        FssbenchError: a class lists a single image, NumPy does not accept the seed, or `episodes`
            is None.
    """
    generator = _generator(pool)
    classes = sorted(pool.lists)
    drawn = (_choice(generator, classes) for _ in count())
    return _uniform(pool, generator, drawn, episodes, shots, "hsnet-class-uniform")


def class_in_turn(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Take the classes in turn, and draw the query uniformly: PATNet on its cross-domain sets.

    It is the order of data/deepglobe.py, isic.py and lung.py of PATNet's repository, with the seed
    of its test.py. The lists of the classes are sorted, as the files of PATNet's class folders.

    Args:
        pool: class lists.
        episodes: number of episodes.
        shots: number of supports K, which are drawn as in `in_list_order`.
        draw: unused; the generator is HSNet's, with the manifest's seed.

    Raises:
        FssbenchError: a class lists a single image, NumPy does not accept the seed, or `episodes`
            is None.
    """
    turns = cycle(sorted(pool.lists))
    return _uniform(pool, _generator(pool), turns, episodes, shots, "patnet-class-in-turn")


def _uniform(
    pool: Pool, generator: numpy.random.RandomState, classes: Iterable[int],
    episodes: int | None, shots: int, sampler: str,
) -> list[Episode]:  # fmt: skip
    """Draw the queries of classes uniformly."""
    if episodes is None:
        raise FssbenchError(f"sampler {sampler} needs a protocol's number of episodes")
    asked = islice(classes, episodes)
    queries = ((class_id, _choice(generator, pool.lists[class_id])) for class_id in asked)
    return _episodes(pool, generator, queries, shots)


def _generator(pool: Pool) -> numpy.random.RandomState:
    for class_id, images in pool.lists.items():
        if len(set(images)) < 2:
            name = pool.dataset.classes[class_id]
            raise FssbenchError(f"the lists have one image of {name}; its support needs another")
    if not 0 <= pool.seed < 1 << 32:
        raise FssbenchError(f"--seed {pool.seed}: NumPy's generator takes 0 to 4294967295")
    return numpy.random.RandomState(pool.seed)


def _episodes(
    pool: Pool, generator: numpy.random.RandomState, queries: Iterable[Any], shots: int
) -> list[Episode]:
    made = []
    # Queries may be drawn from the same generator: each one before the supports of its episode.
    for index, (class_id, query) in enumerate(queries):
        drawn = (_choice(generator, pool.lists[class_id]) for _ in count())
        support = tuple(islice((image for image in drawn if image != query), shots))
        made.append(Episode(index=index, class_id=class_id, query=query, support=support))
    return made


def _choice(generator: numpy.random.RandomState, items: Sequence[T]) -> T:
    # As in HSNet's code, which draws without replacement: NumPy permutes all positions, so the
    # number of random numbers that it consumes depends on the length of the list.
    return items[int(generator.choice(len(items), 1, replace=False)[0])]


def _warn_unless(path: Path, found: int, official: int, what: str) -> None:
    if found != official:
        log.warning("%s: lists %d %s; the authors' own list has %d", path, found, what, official)
