"""People's own data in COCO's format of object instances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np

from fssbench.data.cache import Array, Arrays, pack_names, saved_or_built, unpack_names
from fssbench.data.coco_instances import CocoInstances
from fssbench.data.coco_masks import CocoMasks, Overlaps, read_categories
from fssbench.data.index import fingerprint
from fssbench.data.own_data import OwnData, OwnDataConfig, fold_file, of_split, own_root
from fssbench.errors import FssbenchError

_NEEDS = "the folder that holds the annotation files and the images"


@attrs.frozen
class CocoJsonConfig(OwnDataConfig):
    """Options of `CocoJson`.

    Attributes:
        val: annotation file of the evaluated images, below the root or absolute; "" for the only
            ``.json`` file in the root or in ``annotations/``.
        train: annotation file of the training images; "" for that of `val`.
        images: folder that the file names are relative to, below the root or absolute, with
            ``{split}`` for ``train`` or ``val``; "" for the rule of `CocoJson`.
        overlaps: pixels of several instances, as for ``coco20i``.
    """

    val: str = ""
    train: str = ""
    images: str = ""
    overlaps: Overlaps = "union"


class CocoJson(OwnData, CocoInstances):
    """Any annotation file of COCO's object instances, with its own categories.

    Classes are the categories of all files by ascending id. An image id is its file name; with
    different files for train and val, the split is before it (``val/1.jpg``).

    Without the option `images`, the images of a split are in the first of these folders that has
    the first image of the annotation file: ``images/SPLIT``, ``SPLIT`` and ``images`` below the
    root, the folder of the annotation file, and the root.

    Args:
        root: folder of the annotation files and the images.
        config: see `CocoJsonConfig`.

    Raises:
        FssbenchError: the root or an annotation file is missing or invalid, or options are wrong.
    """

    name: ClassVar[str] = "coco-json"

    def __init__(self, *, root: Path | None, config: CocoJsonConfig | None = None) -> None:
        root, config = own_root(self.name, root, _NEEDS), config or CocoJsonConfig()
        self.set_name(root, config.name)
        train = root / config.train if config.train else None
        folds = fold_file(root, config.fold_file) if config.fold_file else None
        val = root / config.val if config.val else _only_json(root, {train, folds})
        self._files = {"train": train or val, "val": val}
        self.categories = merged_categories(dict.fromkeys(self._files.values()))
        super().__init__(root, config.overlaps)
        self.set_classes(list(self.categories.values()), config, root, val)
        self._pattern = config.images
        self._folders: dict[str, Path] = {}

    def annotations(self, split: str) -> Path:
        """Return the annotation file of a split."""
        return self._files[split]

    def image_folder(self, split: str) -> Path:
        """Return the folder that the file names of a split's images are relative to.

        Raises:
            FssbenchError: no option names it, and no folder of the rule has the first image.
        """
        if split not in self._folders:
            self._folders[split] = self._find_images(split)
        return self._folders[split]

    def shares_images(self) -> bool:
        """Return True if both splits have the same annotation file."""
        return self._files["train"] == self._files["val"]

    def _find_images(self, split: str) -> Path:
        if self._pattern:
            return self.root / of_split(self._pattern, split)
        below = [self.root / "images" / split, self.root / split, self.root / "images"]
        tried = dict.fromkeys([*below, self.annotations(split).parent, self.root])
        self.prepare(split)
        masks = self._masks[split]
        first = masks.file_name(masks.image_ids[0])
        for folder in tried:
            if (folder / first).is_file():
                return folder
        raise FssbenchError(
            f"{self.annotations(split)}: its first image {first} is in none of "
            f"{', '.join(map(str, tried))}; name the folder of the images with -d images=FOLDER"
        )

    def _options(self) -> Mapping[str, str]:
        return {**super()._options(), **self.fold_options()}

    def _with_ids(self, masks: CocoMasks, split: str) -> CocoMasks:
        if not masks.image_ids:
            raise FssbenchError(f"{self.annotations(split)}: lists no images; name another file")
        try:
            return masks.by_file_name("" if self.shares_images() else f"{split}/")
        except ValueError as error:
            raise FssbenchError(f"{self.annotations(split)}: {error}; rename one") from error


def _only_json(root: Path, others: set[Path | None]) -> Path:
    """Return the only JSON file of the root and of ``annotations/``, except `others`."""
    used = {path.resolve() for path in others if path}
    found = sorted([*root.glob("*.json"), *(root / "annotations").glob("*.json")])
    found = [path for path in found if path.resolve() not in used]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.relative_to(root).as_posix() for path in found[:5])
    there = f"{len(found)} .json files ({names})" if found else "no .json file"
    raise FssbenchError(
        f"{CocoJson.name}: {there} in {root} and its annotations/; --data-root must name {_NEEDS}, "
        "and -d val=FILE one of several"
    )


@attrs.frozen(eq=False)
class _Categories:
    """Ids and names of the categories of an annotation file, as a `Saved`."""

    ids: Array
    names: list[str]

    def arrays(self) -> Arrays:
        return {"ids": self.ids, "names": pack_names(self.names)}

    @classmethod
    def of(cls, path: Path) -> _Categories:
        found = read_categories(path)
        return cls(np.array(list(found), np.int64), list(found.values()))

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> _Categories:
        return cls(arrays["ids"], unpack_names(arrays["names"]))


def merged_categories(paths: Iterable[Path]) -> dict[int, str]:
    """Return the names of the categories of annotation files by ascending id.

    The names are saved in the cache folder.

    Raises:
        FssbenchError: a file is missing or invalid, or two files have other names for an id.
    """
    names: dict[int, str] = {}
    of: dict[int, Path] = {}
    for path in paths:
        missing = "no such annotation file; name it with -d val=FILE and -d train=FILE"
        digest = fingerprint("categories", (), {"": path}, missing)
        found, _ = saved_or_built(
            f"categories-{digest}", partial(_Categories.of, path), _Categories.from_arrays
        )
        for number, name in zip(found.ids.tolist(), found.names, strict=True):
            if names.setdefault(number, name) != name:
                raise FssbenchError(
                    f"{path}: category {number} is {name!r}, in {of[number]} it is "
                    f"{names[number]!r}; use the same categories in both files"
                )
            of.setdefault(number, path)
    return {number: names[number] for number in sorted(names)}
