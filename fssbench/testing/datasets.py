"""Checks of the dataset interface; see `fssbench.Dataset`."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
import torch

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError, one_line
from fssbench.specs import DatasetSpec
from fssbench.testing.check import Checks, NotCheckedError, expect
from fssbench.testing.random_state import Watch, place_generators

IMAGES = 8
"""Images of each split that are opened, evenly spread."""

CHECKS = Checks("dataset")


@attrs.frozen(kw_only=True, eq=False, slots=False)
class DatasetSubject:
    """A registered dataset.

    Attributes:
        name: the registered name.
        root: its folder, if it has one.
        given: its options.
    """

    name: str
    root: Path | None = None
    given: Mapping[str, Any] = attrs.field(factory=dict)

    @cached_property
    def spec(self) -> DatasetSpec:
        """Spec of the dataset."""
        return registry.registry().get(DatasetSpec, self.name)

    @cached_property
    def thing(self) -> Any:
        """Class of the dataset, or the function that creates it."""
        return registry.load(self.spec)

    def made(self) -> Dataset:
        """A new object.

        Raises:
            NotCheckedError: its files are needed, and nobody said where they are.
        """
        if self.root is None and self.spec.layout:
            try:
                return build.dataset(self.name, None, **self.given)
            except FssbenchError as error:
                raise NotCheckedError(f"needs its files: {error}") from error
        return build.dataset(self.name, self.root, **self.given)

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
        found, missing = [], None
        for split in self.dataset.splits:
            try:
                self.dataset.image_ids(split)
                found.append(split)
            except FssbenchError as error:
                missing = error
        if not found and missing is not None:
            raise missing
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
    """`name`, `classes`, `folds` and `splits` say what the dataset is."""
    dataset = subject.dataset
    expect(
        dataset.name == subject.spec.name,
        f"the name that it is registered as, {subject.spec.name!r}",
        f"name = {dataset.name!r}",
    )
    classes = tuple(dataset.classes)
    expect(
        bool(classes) and len(set(classes)) == len(classes),
        "names of classes, each once",
        f"{len(classes)} names, {len(set(classes))} different ones",
    )
    expect(dataset.folds >= 1, "at least one fold", f"folds = {dataset.folds}")
    expect(bool(dataset.splits), "at least one split", "splits is empty")
    return f"{len(classes)} classes, {dataset.folds} folds, splits {', '.join(dataset.splits)}"


@CHECKS.add("fold_classes")
def folds(subject: DatasetSubject) -> str:
    """Folds are ascending class ids, disjoint; another fold is an FssbenchError."""
    dataset, seen = subject.dataset, set[int]()
    for fold in range(dataset.folds):
        found = dataset.fold_classes(fold)
        expect(
            list(found) == sorted(set(found)),
            f"ascending class ids in fold {fold}",
            f"{list(found)}",
        )
        wrong = [c for c in found if not 0 <= c < len(dataset.classes)]
        expect(
            not wrong,
            f"class ids from 0 to {len(dataset.classes) - 1} in fold {fold}",
            f"{wrong}",
        )
        twice = sorted(seen & set(found))
        expect(not twice, "each class novel in one fold at most", f"{twice} again in fold {fold}")
        seen |= set(found)
    for fold in (-1, dataset.folds):
        _refuses(lambda fold=fold: dataset.fold_classes(fold), f"fold_classes({fold})")
    return f"{len(seen)} of {len(dataset.classes)} classes are novel in some fold"


@CHECKS.add("image_ids")
def images(subject: DatasetSubject) -> str:
    """A split lists different ids, always in one order; another split is an FssbenchError."""
    dataset, notes = subject.dataset, []
    for split in subject.splits:
        ids = list(dataset.image_ids(split))
        expect(bool(ids), f"images in split {split!r}", "none")
        expect(
            len(set(ids)) == len(ids),
            f"each id once in split {split!r}",
            f"{len(ids)} ids, {len(set(ids))} different ones",
        )
        expect(
            ids == list(dataset.image_ids(split)) == list(subject.made().image_ids(split)),
            f"split {split!r} in the same order each time",
            "another order",
        )
        notes.append(f"{split} {len(ids)}")
    _refuses(lambda: dataset.image_ids("no such split"), "image_ids('no such split')")
    return ", ".join(notes)


@CHECKS.add("image", "mask")
def pixels(subject: DatasetSubject) -> str:
    """Images are uint8 (3, H, W); masks uint8 (H, W) of 0, 1 and 255, of the image's size."""
    dataset, masks = subject.dataset, 0
    for image_id in subject.opened:
        image = dataset.image(image_id)
        expect(
            image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3,
            f"image {image_id}: uint8 (3, H, W)",
            f"{image.dtype} {tuple(image.shape)}",
        )
        for class_id in _asked(dataset, image_id):
            mask = dataset.mask(image_id, class_id)
            expect(
                mask.dtype == torch.uint8 and mask.shape == image.shape[-2:],
                f"mask of class {class_id} in {image_id}: uint8 {tuple(image.shape[-2:])}",
                f"{mask.dtype} {tuple(mask.shape)}",
            )
            values = set(torch.unique(mask).tolist())
            expect(
                values <= {0, 1, 255},
                f"mask of class {class_id} in {image_id}: values 0, 1 and 255 (ignore)",
                f"{sorted(values)}",
            )
            masks += 1
    return f"{len(subject.opened)} images, {masks} masks"


@CHECKS.add("class_pixels", "mask")
def class_pixels(subject: DatasetSubject) -> str:
    """`class_pixels` counts the pixels of 1 in the masks, of classes that are there, no others."""
    dataset, entries = subject.dataset, 0
    for image_id in subject.opened:
        found = dataset.class_pixels(image_id)
        for class_id in sorted({*_asked(dataset, image_id), *found}):
            marked = int((dataset.mask(image_id, class_id) == 1).sum())
            count = found.get(class_id, 0)
            expect(
                count == marked and (class_id not in found or count > 0),
                f"{marked} pixels of class {class_id} in {image_id}, as its mask marks"
                + ("" if marked else ", and so no entry"),
                f"{count}" if class_id in found else "no entry",
            )
        entries += len(found)
    for split in subject.splits:
        dataset.prepare(split)
    fresh = subject.made()
    for image_id in subject.opened:
        expect(
            dict(dataset.class_pixels(image_id)) == dict(fresh.class_pixels(image_id)),
            f"the same pixels in {image_id} before and after `prepare`",
            f"{dict(fresh.class_pixels(image_id))} and {dict(dataset.class_pixels(image_id))}",
        )
    return f"{entries} entries of {len(subject.opened)} images"


@CHECKS.add("image")
def unknown_image(subject: DatasetSubject) -> str:
    """An image that is not there is an FssbenchError."""
    dataset = subject.dataset
    return _refuses(lambda: dataset.image("no such image"), "image('no such image')")


@CHECKS.add("fingerprint")
def fingerprint(subject: DatasetSubject) -> str:
    """A split's fingerprint is a hash in hex, the same from each object."""
    notes = []
    for split in subject.splits:
        found = subject.dataset.fingerprint(split)
        expect(
            len(found) >= 16 and set(found) <= set("0123456789abcdef"),
            f"a hash in hex for split {split!r}, of 16 digits or more",
            f"{found!r}",
        )
        other = subject.made().fingerprint(split)
        expect(found == other, f"the same fingerprint of {split!r} again", f"{found}, then {other}")
        notes.append(f"{split} {found[:8]}…")
    return ", ".join(notes)


@CHECKS.add("image", "mask")
def determinism(subject: DatasetSubject) -> str:
    """Images and masks are the same each time and draw from no generator of the process."""
    first, second = subject.dataset, subject.made()
    watch = Watch()
    for image_id in subject.opened:
        first.image(image_id)
        for class_id in _asked(first, image_id):
            first.mask(image_id, class_id)
    expect(not watch.moved(), "generators of the process stay where they are",
           f"{watch.moved()} changed")  # fmt: skip
    for image_id in subject.opened:
        place_generators(1)
        image = first.image(image_id)
        masks = [first.mask(image_id, c) for c in _asked(first, image_id)]
        place_generators(2)
        same = torch.equal(image, second.image(image_id)) and all(
            torch.equal(mask, second.mask(image_id, c))
            for mask, c in zip(masks, _asked(first, image_id), strict=True)
        )
        expect(same, f"the same pixels of {image_id} from another object", "others")
    return f"{len(subject.opened)} images, twice"


@CHECKS.add("__init__")
def pickling(subject: DatasetSubject) -> str:
    """A pickled copy, as loader processes have, gives the same image."""
    dataset, image_id = subject.dataset, subject.opened[0]
    data = pickle.dumps(dataset)
    copy = pickle.loads(data)
    expect(
        torch.equal(copy.image(image_id), dataset.image(image_id)),
        f"the same image {image_id} from a pickled copy",
        "another",
    )
    return f"{len(data):,} bytes"


def _asked(dataset: Dataset, image_id: str) -> list[int]:
    """The classes of an image and one that it has not."""
    found = sorted(dataset.class_pixels(image_id))
    absent = [c for c in range(len(dataset.classes)) if c not in found]
    return [*found, *absent[:1]]


def _refuses(call: Any, text: str) -> str:
    """What the FssbenchError of a call says; anything else is a failure."""
    try:
        call()
    except FssbenchError as error:
        return str(error)
    except Exception as error:
        expect(False, f"{text}: an FssbenchError, one line for people", one_line(error))
    expect(False, f"{text}: an FssbenchError", "nothing was raised")
    raise AssertionError  # expect has raised
