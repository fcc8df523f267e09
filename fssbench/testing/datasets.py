"""Checks of the dataset interface; see `fssbench.Dataset`."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench import build
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError
from fssbench.runtime.random_state import place_generators
from fssbench.specs import DatasetSpec
from fssbench.testing.check import (
    Checks,
    NotCheckedError,
    Subject,
    expect,
    expect_error,
    expect_tensor,
    expect_unchanged_generators,
)

IMAGES = 8
"""Images of each split that are opened, evenly spread."""

CHECKS = Checks("dataset")


@attrs.frozen(kw_only=True, eq=False, slots=False)
class DatasetSubject(Subject):
    """A registered dataset.

    Attributes:
        root: folder of the dataset, if required.
        given: options of the dataset.
    """

    spec_class = DatasetSpec
    root: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    given: Mapping[str, Any] = attrs.field(factory=dict, alias="options")

    def made(self) -> Dataset:
        """Return a new dataset.

        Raises:
            NotCheckedError: its files are required, and no root is given.
        """
        try:
            return build.dataset(self.name, self.root, **self.given)
        except FssbenchError as error:
            if self.root is None and self.spec.layout:
                raise NotCheckedError(f"needs its files: {error}") from error
            raise

    @cached_property
    def dataset(self) -> Dataset:
        """Dataset shared by all checks that need no new one."""
        return self.made()

    @cached_property
    def splits(self) -> list[str]:
        """Splits whose list files exist.

        Raises:
            FssbenchError: none is.
        """
        found = []
        for split in self.dataset.splits:
            with contextlib.suppress(FssbenchError):
                self.dataset.image_ids(split)
                found.append(split)
        if not found:  # raise the error of the first
            list(map(self.dataset.image_ids, self.dataset.splits))
        return found

    @cached_property
    def opened(self) -> list[str]:
        """Ids of the images to open."""
        ids: list[str] = []
        for split in self.splits:
            listed = self.dataset.image_ids(split)
            count = min(IMAGES, len(listed))
            ids += [listed[n * len(listed) // count] for n in range(count)]
        return list(dict.fromkeys(ids))


@CHECKS.add()
def description(subject: DatasetSubject) -> str:
    """`name`, `classes`, `folds` and `splits` describe the dataset."""
    dataset, registered = subject.dataset, subject.spec.name
    named = registered in (dataset.name, type(dataset).name)  # own data have the user's name
    expect(named, f"the registered name, {registered!r}", f"{dataset.name!r}")
    _expect_distinct(dataset.classes, "names of classes")
    expect(dataset.folds >= 1, "at least one fold", f"folds = {dataset.folds}")
    expect(bool(dataset.splits), "at least one split", "splits is empty")
    classes, splits = len(dataset.classes), ", ".join(dataset.splits)
    return f"{classes} classes, {dataset.folds} folds, splits {splits}"


@CHECKS.add("fold_classes")
def folds(subject: DatasetSubject) -> str:
    """Folds are ascending class ids, disjoint; another fold is an FssbenchError."""
    dataset, seen, total = subject.dataset, set[int](), len(subject.dataset.classes)
    for fold in range(dataset.folds):
        found = list(dataset.fold_classes(fold))
        ascending = found == sorted(set(found))
        expect(ascending, f"ascending class ids in fold {fold}", f"{found}")
        wrong = [c for c in found if not 0 <= c < total]
        expect(not wrong, f"class ids from 0 to {total - 1} in fold {fold}", f"{wrong}")
        twice = sorted(seen & set(found))
        expect(not twice, "each class novel in one fold at most", f"{twice} again in fold {fold}")
        seen |= set(found)
    fixed = type(dataset).novel_classes
    if fixed and dataset.folds_of == dataset.name:
        known = tuple(dataset.fold_classes(fold) for fold in range(dataset.folds))
        expect(fixed == known, "novel_classes as in fold_classes", f"{fixed} and {known}")
    for fold in (-1, dataset.folds):
        expect_error(partial(dataset.fold_classes, fold), f"fold_classes({fold})")
    return f"{len(seen)} of {total} classes are novel in some fold"


@CHECKS.add("image_ids")
def images(subject: DatasetSubject) -> str:
    """A split lists unique ids, always in the same order; another split is an FssbenchError."""
    dataset, notes = subject.dataset, []
    for split in subject.splits:
        ids = list(dataset.image_ids(split))
        _expect_distinct(ids, f"ids in split {split!r}")
        same = ids == list(dataset.image_ids(split)) == list(subject.made().image_ids(split))
        expect(same, f"split {split!r} in the same order each time", "another order")
        notes.append(f"{split} {len(ids)}")
    expect_error(lambda: dataset.image_ids("no such split"), "image_ids('no such split')")
    return ", ".join(notes)


@CHECKS.add("image", "mask")
def pixels(subject: DatasetSubject) -> str:
    """Images are uint8 (3, H, W); masks uint8 (H, W) of 0, 1 and 255, of the image's size."""
    dataset, masks = subject.dataset, 0
    for image_id in subject.opened:
        image = dataset.image(image_id)
        valid = image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3
        expect_tensor(image, valid, f"image {image_id}: uint8 (3, H, W)")
        for class_id in _classes_to_check(dataset, image_id):
            mask = dataset.mask(image_id, class_id)
            where = f"mask of class {class_id} in {image_id}"
            valid = mask.dtype == torch.uint8 and mask.shape == image.shape[-2:]
            expect_tensor(mask, valid, f"{where}: uint8 {tuple(image.shape[-2:])}")
            values = torch.unique(mask).tolist()
            expect(set(values) <= {0, 1, 255}, f"{where}: values 0, 1 and 255", f"{values}")
            masks += 1
    return f"{len(subject.opened)} images, {masks} masks"


@CHECKS.add("class_pixels", "mask")
def class_pixels(subject: DatasetSubject) -> str:
    """`class_pixels` counts the pixels of 1 in the masks, and has no entries of 0."""
    dataset, entries = subject.dataset, 0
    for image_id in subject.opened:
        found = dataset.class_pixels(image_id)
        for class_id in sorted({*_classes_to_check(dataset, image_id), *found}):
            marked = int((dataset.mask(image_id, class_id) == 1).sum()) or None
            count = found.get(class_id)
            expected = f"{marked or 'no'} pixels of class {class_id} in {image_id}, as in its mask"
            expect(count == marked, expected, "no entry" if count is None else f"{count}")
        entries += len(found)
    for split in subject.splits:
        dataset.prepare(split)
    fresh = subject.made()
    for image_id in subject.opened:
        before, after = dict(fresh.class_pixels(image_id)), dict(dataset.class_pixels(image_id))
        expected = f"the same pixels in {image_id} before and after `prepare`"
        expect(before == after, expected, f"{before} and {after}")
    return f"{entries} entries of {len(subject.opened)} images"


@CHECKS.add("image")
def unknown_image(subject: DatasetSubject) -> str:
    """An unknown image is an FssbenchError."""
    dataset = subject.dataset
    return expect_error(lambda: dataset.image("no such image"), "image('no such image')")


@CHECKS.add("fingerprint")
def fingerprint(subject: DatasetSubject) -> str:
    """A split's fingerprint is a hash in hex, the same from each object."""
    notes = []
    for split in subject.splits:
        found, other = (each.fingerprint(split) for each in (subject.dataset, subject.made()))
        valid = len(found) >= 16 and set(found) <= set("0123456789abcdef")
        expect(valid, f"a hash for split {split!r}, at least 16 hex digits", f"{found!r}")
        expect(found == other, f"the same fingerprint of {split!r} again", f"{found}, then {other}")
        notes.append(f"{split} {found[:8]}…")
    return ", ".join(notes)


@CHECKS.add("image", "mask")
def determinism(subject: DatasetSubject) -> str:
    """Images and masks are always the same and do not use the global generators."""

    def contents(dataset: Dataset) -> dict[str, list[Tensor]]:
        return {
            i: [dataset.image(i), *(dataset.mask(i, c) for c in _classes_to_check(dataset, i))]
            for i in subject.opened
        }

    with expect_unchanged_generators():
        first = contents(subject.dataset)
    place_generators(1)
    second = contents(subject.made())
    for image_id, planes in first.items():
        same = all(map(torch.equal, planes, second[image_id]))
        expect(same, f"the same pixels of {image_id} from another object", "others")
    return f"{len(subject.opened)} images, twice"


@CHECKS.add("__init__")
def pickling(subject: DatasetSubject) -> str:
    """A pickled copy, as in loader processes, gives the same image."""
    dataset, image_id = subject.dataset, subject.opened[0]
    data = pickle.dumps(dataset)
    same = torch.equal(pickle.loads(data).image(image_id), dataset.image(image_id))
    expect(same, f"the same image {image_id} from a pickled copy", "another")
    return f"{len(data):,} bytes"


def _classes_to_check(dataset: Dataset, image_id: str) -> list[int]:
    """Return the classes of an image and one absent class."""
    found = sorted(dataset.class_pixels(image_id))
    absent = [c for c in range(len(dataset.classes)) if c not in found]
    return [*found, *absent[:1]]


def _expect_distinct(found: Sequence[str], what: str) -> None:
    count, distinct = len(found), len(set(found))
    expect(distinct == count > 0, f"unique {what}", f"{count} names, {distinct} different")
