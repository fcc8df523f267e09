"""HDMNet's lists and the law of its episodes (Peng et al., CVPR 2023); BAM and PFENet are alike.

The authors draw with Python's ``random`` inside eight loader processes, whose seeds follow from
PyTorch's: their list of episodes depends on the number of processes and on PyTorch's version. So
what is replayed here is the law (who is asked in which order, and how class and supports are
drawn), with fssbench's own generator, and not their very episodes.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.literature.lists import Listed, find_list, image_id, read_lines
from fssbench.episodes.sampler import Pool
from fssbench.errors import FssbenchError


def pascal_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """The lists of PASCAL-5i below ``pascal/``, see `coco_lists`."""
    return _lists(folder, "pascal", dataset, fold)


def coco_lists(folder: Path, dataset: Dataset, fold: int) -> Listed:
    """The lists of COCO-20i below ``coco/fss_list/val``.

    ``data_list_<N>.txt`` has the paths of image and label on each line, in the order of the
    queries; ``sub_class_file_list_<N>.txt`` is one Python dictionary, class number from 1 to a list
    of (image, label) paths.

    Args:
        folder: the authors' ``lists``, or the folder that holds ``lists``.
        dataset: COCO-20i of 2014.
        fold: N.

    Raises:
        FssbenchError: a file is missing or has another form, or a class of the fold has no image.
    """
    return _lists(folder, "coco", dataset, fold)


def image_sequential(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """The listed images in order, again from the start; a class of each is drawn, then supports.

    The class is drawn uniformly from the fold's classes in the image, however few pixels they have.
    Supports are different images of the class's list, never the query, and handed over in reverse
    order of drawing, as the authors stack them.

    Args:
        pool: with `Pool.queries`.
        episodes: how many; None for each query once.
        shots: K.
        draw: the only source of randomness.

    Raises:
        FssbenchError: a class lists fewer than K+1 images, or an image holds no class of the fold.
    """
    for class_id, images in pool.lists.items():
        if len(set(images)) <= shots:
            raise FssbenchError(
                f"the lists have {len(set(images))} images of {pool.dataset.classes[class_id]}; "
                f"{shots}-shot needs {shots + 1}"
            )
    made = []
    for index in range(len(pool.queries) if episodes is None else episodes):
        _, query = pool.queries[index % len(pool.queries)]
        present = sorted(set(pool.dataset.class_pixels(query)) & set(pool.lists))
        if not present:
            raise FssbenchError(
                f"the lists ask for image {query}, which holds no class of the fold"
            )
        class_id = present[draw.below(len(present))]
        drawn = draw.distinct(pool.lists[class_id], shots, but=query)
        made.append(
            Episode(index=index, class_id=class_id, query=query, support=tuple(reversed(drawn)))
        )
    return made


def _lists(folder: Path, name: str, dataset: Dataset, fold: int) -> Listed:
    place = f"{name}/fss_list/val"
    images, classes = (
        find_list(folder, f"{place}/{stem}_{fold}.txt", f"lists/{place}/{stem}_{fold}.txt")
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


def _class_lists(path: Path, dataset: Dataset, fold: int) -> dict[int, list[str]]:
    text = "\n".join(line for _, line in read_lines(path))
    try:
        # Only literals: the authors' code would run whatever stands in the file.
        found = ast.literal_eval(text)
        if not all(type(number) is int for number in found):
            raise TypeError("a class number that is none")
        lists = {
            number - 1: [image_id(image) for image, _ in pairs] for number, pairs in found.items()
        }
    except (
        ValueError,
        TypeError,
        AttributeError,
        SyntaxError,
        MemoryError,
        RecursionError,
    ) as error:
        raise FssbenchError(
            f"{path}: is not one Python dictionary, class number to (image, label) paths"
        ) from error
    wanted = dataset.fold_classes(fold)
    if set(lists) != set(wanted):
        raise FssbenchError(
            f"{path}: has the class numbers {_numbers(lists)}; fold {fold} has {_numbers(wanted)}"
        )
    silent = [dataset.classes[class_id] for class_id, of_class in lists.items() if not of_class]
    if silent:
        raise FssbenchError(f"{path}: lists no image of {', '.join(silent)}")
    return {class_id: lists[class_id] for class_id in wanted}


def _numbers(class_ids: Iterable[int]) -> str:
    return ", ".join(str(class_id + 1) for class_id in sorted(class_ids))
