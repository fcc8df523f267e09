"""HDMNet's lists and the distribution of its episodes (Peng et al., CVPR 2023).

BAM and PFENet draw episodes in the same way. The authors use Python's ``random`` in eight loader
processes with seeds from PyTorch, so their episodes depend on the number of processes and on the
release of PyTorch. Therefore not these episodes are replayed, but their distribution (order of the
queries, drawing of class and supports), with fssbench's own generator.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

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
)
from fssbench.episodes.sampler import Pool
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically

FOLDERS = {"pascal5i": "pascal", "coco20i": "coco"}
"""The authors' folder of a dataset, by its name; others are named like the dataset."""


def read_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """Read the lists of one fold in ``pascal/fss_list/val`` or ``coco/fss_list/val``.

    ``data_list_<N>.txt`` has the paths of image and label on each line, in the order of the
    queries; ``sub_class_file_list_<N>.txt`` is one Python dictionary, class number from 1 to a list
    of (image, label) paths.

    Args:
        folder: authors' folder ``lists``, or the folder that contains it.
        dataset: PASCAL-5i, or COCO-20i of 2014.
        fold: fold N.

    Raises:
        FssbenchError: a file is missing or malformed, or a class of the fold has no image.
    """
    parent = f"{FOLDERS.get(dataset.name, dataset.name)}/fss_list/val"
    images, classes = (
        find_list(folder, "lists", f"{parent}/{stem}_{fold}.txt")
        for stem in ("data_list", "sub_class_file_list")
    )
    queries: list[tuple[int | None, str]] = []
    for number, line in read_lines(images):
        if len(paths := line.split()) != 2:
            raise FssbenchError(
                f"{images}, line {number}: {line[:40]!r} is not the paths of image and label"
            )
        queries.append((None, image_id(paths[0])))
    return Listed(lists=_class_lists(classes, dataset, fold), queries=queries)


def write_lists(
    folder: Path, dataset: Dataset, fold: int, split: str, lists: Mapping[int, Sequence[str]]
) -> tuple[Path, Path]:
    """Write the two list files of a fold, for `read_lists` and for the authors' code.

    Paths are relative to the folder of the dataset. A label map is named like its image, below
    ``SegmentationClassAug`` (PASCAL) or ``annotations`` (COCO, whose label maps are not written).

    Args:
        folder: folder for ``pascal/fss_list`` or ``coco/fss_list``.
        dataset: PASCAL-5i or COCO-20i.
        fold: fold N of the file names.
        split: ``train`` or ``val``.
        lists: ids of the images of each class, sorted.

    Returns:
        The paths of ``data_list_<N>.txt`` and ``sub_class_file_list_<N>.txt``.

    Raises:
        FssbenchError: the dataset has no authors' lists, or a file cannot be written.
    """
    if dataset.name not in FOLDERS:
        raise FssbenchError(f"{dataset.name}: lists are written for {' and '.join(FOLDERS)}")
    pairs = {}
    for image in sorted(set[str]().union(*lists.values())):
        path = dataset.image_path(image)
        assert path is not None
        label = (
            "SegmentationClassAug"
            if dataset.name == "pascal5i"
            else f"annotations/{path.parent.name}"
        )
        pairs[image] = (f"{path.parent.name}/{path.name}", f"{label}/{path.stem}.png")
    below = folder / FOLDERS[dataset.name] / "fss_list" / split
    images, classes = (
        below / f"{stem}_{fold}.txt" for stem in ("data_list", "sub_class_file_list")
    )
    write_atomically(images, "".join(f"{a} {b}\n" for a, b in pairs.values()).encode())
    of_classes = {c + 1: [pairs[image] for image in lists[c]] for c in sorted(lists)}
    write_atomically(classes, str(of_classes).encode())
    return images, classes


def image_sequential(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Take the listed images in order, cyclically, and draw a class and supports for each.

    The class is drawn uniformly from the fold's classes in the image, however few pixels they have.
    Supports are different images of the class's list, never the query, in reverse order of drawing,
    as the authors stack them.

    Args:
        pool: pool with `Pool.queries`.
        episodes: number of episodes; None for one for each query.
        shots: number of supports K.
        draw: source of randomness.

    Raises:
        FssbenchError: a class lists fewer than K+1 images, or an image has no class of the fold.
    """
    for class_id, images in pool.lists.items():
        if len(set(images)) <= shots:
            raise FssbenchError(
                f"the lists have {len(set(images))} images of {pool.dataset.classes[class_id]}; "
                f"{shots}-shot needs {shots + 1}"
            )
    made = []
    for index, (_, query) in enumerate(cycled(pool.queries, episodes)):
        present = sorted(set(pool.dataset.class_pixels(query)) & set(pool.lists))
        if not present:
            raise FssbenchError(f"the lists contain image {query}, which has no class of the fold")
        class_id = present[draw.below(len(present))]
        support = tuple(draw.distinct(pool.lists[class_id], shots, but=query)[::-1])
        made.append(Episode(index=index, class_id=class_id, query=query, support=support))
    return made


def image_once(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Draw training episodes: the listed images in random order, each with one of its classes.

    Class and supports are drawn as in `image_sequential`; the lists are the base classes'.

    Args:
        pool: class lists.
        episodes: number of episodes; None for each different image of the lists once.
        shots: number of supports K.
        draw: source of randomness.
    """
    images = draw.shuffled(sorted(set[str]().union(*pool.lists.values())))
    queries = attrs.evolve(pool, queries=[(None, image) for image in images])
    return image_sequential(queries, episodes=episodes, shots=shots, draw=draw)


def _class_lists(path: Path, dataset: Dataset, fold: int) -> dict[int, list[str]]:
    text = "\n".join(line for _, line in read_lines(path))
    try:
        # Literals only; the authors' code evaluates the text as Python code.
        found = ast.literal_eval(text)
        if not all(type(number) is int for number in found):
            raise TypeError("a key that is no class number")
        lists = {
            number - 1: [image_id(image) for image, _ in pairs] for number, pairs in found.items()
        }
    except (ValueError, TypeError, AttributeError, SyntaxError, MemoryError,
            RecursionError) as error:  # fmt: skip
        raise FssbenchError(
            f"{path}: is not one Python dictionary, class number to (image, label) paths"
        ) from error
    wanted = dataset.fold_classes(fold)
    if set(lists) != set(wanted):
        raise FssbenchError(
            f"{path}: has the class numbers {_numbers(lists)}; fold {fold} has {_numbers(wanted)}"
        )
    check_complete(path, dataset, lists)
    return {class_id: lists[class_id] for class_id in wanted}


def _numbers(class_ids: Iterable[int]) -> str:
    return ", ".join(str(class_id + 1) for class_id in sorted(class_ids))
