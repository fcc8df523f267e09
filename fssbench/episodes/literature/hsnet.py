"""HSNet's lists and episodes (Min, Kang, Cho, ICCV 2021), as its code draws them.

The same lists and draws serve DCAMA, VAT, GF-SAM and Matcher. Of NumPy's generators HSNet uses the
legacy one, whose numbers NumPy has frozen; here it is a private object with the same seed and the
same calls, so that a method which draws numbers cannot change the episodes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy

from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.literature.lists import Listed, find_list, image_id, read_lines, read_pickle
from fssbench.episodes.sampler import Pool
from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)

T = TypeVar("T")

PASCAL_PAIRS = (346, 451, 725, 346)
"""(image, class) pairs in HSNet's own validation lists, by fold."""

COCO_PAIRS = (35783, 17912, 14563, 14315)
"""The same of its pickles."""

FSS_CLASSES = 240
FSS_IMAGES = tuple(str(number) for number in range(1, 11))
"""HSNet does not look which images a class of FSS-1000 has: they are 1 to 10."""


# --- lists ----------------------------------------------------------------------------------------


def pascal_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """``pascal/val/fold<N>.txt``: lines ``<image id>__<class number from 01>``, in file order.

    Args:
        folder: HSNet's ``data/splits``, or the folder that holds ``data/splits``.
        dataset: PASCAL-5i.
        fold: N.

    Raises:
        FssbenchError: the file is missing, a line is no such pair or of another fold, or a class of
            the fold has no line.
    """
    path = _split_file(folder, f"pascal/val/fold{fold}.txt")
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
        lists[class_id].append(pair[1])
        queries.append((class_id, pair[1]))
    _warn_unless(path, len(queries), PASCAL_PAIRS[fold], "pairs")
    return _complete(path, dataset, Listed(lists=lists, queries=queries))


def coco_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """``coco/val/fold<N>.pkl``: a pickled dictionary, class id to image paths.

    Args:
        folder: HSNet's ``data/splits``, or the folder that holds ``data/splits``.
        dataset: COCO-20i of 2014.
        fold: N.

    Raises:
        FssbenchError: the file is missing, it is no such dictionary (`read_pickle` runs nothing),
            or a class of the fold has no image.
    """
    path = _split_file(folder, f"coco/val/fold{fold}.pkl")
    found = read_pickle(path)
    lists = {c: [image_id(name) for name in found.get(c, [])] for c in dataset.fold_classes(fold)}
    _warn_unless(path, sum(map(len, lists.values())), COCO_PAIRS[fold], "pairs")
    return _complete(path, dataset, Listed(lists=lists))


def fss_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """``fss/test.txt``: a class name a line; the ten images of each class are all listed.

    Queries are in the order of HSNet's sorted paths: classes by name, and 10 between 1 and 2.

    Args:
        folder: HSNet's ``data/splits``, or the folder that holds ``data/splits``.
        dataset: FSS-1000.
        fold: 0.

    Raises:
        FssbenchError: the file is missing, or a line names no class or one again.
    """
    path = _split_file(folder, "fss/test.txt")
    novel = {dataset.classes[class_id]: class_id for class_id in dataset.fold_classes(fold)}
    lists: dict[int, list[str]] = {}
    for number, name in read_lines(path):
        if name not in novel:
            raise FssbenchError(f"{path}, line {number}: {name[:40]!r} is no test class there")
        if novel[name] in lists:
            raise FssbenchError(f"{path}, line {number}: lists {name} again")
        lists[novel[name]] = [f"{name}/{image}" for image in FSS_IMAGES]
    _warn_unless(path, len(lists), FSS_CLASSES, "classes")
    by_name = sorted(lists, key=lambda class_id: dataset.classes[class_id])
    queries: list[tuple[int | None, str]]
    queries = [(c, image) for c in by_name for image in sorted(lists[c])]
    return Listed(lists={c: lists[c] for c in sorted(lists)}, queries=queries)


# --- episodes -------------------------------------------------------------------------------------


def in_list_order(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """HSNet on PASCAL-5i and FSS-1000: the listed queries in order, again from the start.

    Each support is drawn from the class's list, anew while it is the query. Supports of an episode
    are drawn each for itself, so one may return.

    Args:
        pool: with `Pool.queries`.
        episodes: how many; None for each query once.
        shots: K.
        draw: unused; the generator is HSNet's, with the manifest's seed.

    Raises:
        FssbenchError: a class lists but one image, or the seed is not one for NumPy.
    """
    generator = _generator(pool)
    made = []
    for index in range(len(pool.queries) if episodes is None else episodes):
        class_id, query = pool.queries[index % len(pool.queries)]
        assert class_id is not None  # its lists are of pairs
        support = _supports(generator, pool.lists[class_id], query, shots)
        made.append(Episode(index=index, class_id=class_id, query=query, support=support))
    return made


def class_uniform(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """HSNet on COCO-20i: a class uniformly, one of its images uniformly; supports as above.

    Args:
        pool: class lists.
        episodes: how many.
        shots: K.
        draw: unused; the generator is HSNet's, with the manifest's seed.

    Raises:
        FssbenchError: a class lists but one image, the seed is not one for NumPy, or `episodes` is
            None.
    """
    if episodes is None:
        raise FssbenchError("sampler hsnet-class-uniform has no end; give a number of episodes")
    generator = _generator(pool)
    classes = sorted(pool.lists)
    made = []
    for index in range(episodes):
        class_id = _choice(generator, classes)
        query = _choice(generator, pool.lists[class_id])
        support = _supports(generator, pool.lists[class_id], query, shots)
        made.append(Episode(index=index, class_id=class_id, query=query, support=support))
    return made


def _generator(pool: Pool) -> numpy.random.RandomState:
    for class_id, images in pool.lists.items():
        if len(set(images)) < 2:
            name = pool.dataset.classes[class_id]
            raise FssbenchError(f"the lists have one image of {name}; its support needs another")
    if not 0 <= pool.seed < 1 << 32:
        raise FssbenchError(f"--seed {pool.seed}: NumPy's generator takes 0 to 4294967295")
    return numpy.random.RandomState(pool.seed)


def _supports(
    generator: numpy.random.RandomState, images: Sequence[str], query: str, shots: int
) -> tuple[str, ...]:
    support: list[str] = []
    while len(support) < shots:
        image = _choice(generator, images)
        if image != query:
            support.append(image)
    return tuple(support)


def _choice(generator: numpy.random.RandomState, items: Sequence[T]) -> T:
    # Without replacement NumPy permutes all positions to draw one, as it does for HSNet, so the
    # length of the list decides how many numbers are used up.
    return items[int(generator.choice(len(items), 1, replace=False)[0])]


def _split_file(folder: Path, name: str) -> Path:
    return find_list(folder, name, f"data/splits/{name}")


def _complete(path: Path, dataset: Dataset, listed: Listed) -> Listed:
    silent = [dataset.classes[class_id] for class_id, images in listed.lists.items() if not images]
    if silent:
        raise FssbenchError(f"{path}: lists no image of {', '.join(silent)}")
    return listed


def _warn_unless(path: Path, count: int, official: int, what: str) -> None:
    if count != official:
        log.warning("%s: lists %d %s; HSNet's own list has %d", path, count, what, official)
