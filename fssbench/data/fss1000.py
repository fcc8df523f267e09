"""FSS-1000: 1000 classes of ten images each."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import attrs

from fssbench.data.folder import ClassFolders
from fssbench.data.index import list_lines
from fssbench.data.masks import Foreground
from fssbench.errors import FssbenchError

log = logging.getLogger(__name__)

LISTS = {"train": ("train.txt", "trn.txt"), "val": ("val.txt",), "test": ("test.txt",)}
OFFICIAL = {"train": 520, "val": 240, "test": 240}
"""Number of classes in the official lists."""


@attrs.frozen
class Fss1000Config:
    """Options of `Fss1000`.

    Attributes:
        lists: folder of the class lists, ``train.txt`` (or ``trn.txt``), ``val.txt`` and
            ``test.txt``, one class name a line. By default, every class is in every split.
        foreground: foreground of the mask files, as `FolderConfig.foreground`.
        leave_out: names of classes that are not novel, as `FolderConfig.leave_out`.
        novel: split whose classes are novel.
    """

    lists: str | None = None
    foreground: Foreground = "auto"
    leave_out: tuple[str, ...] = ()
    novel: Literal["test", "val"] = "test"


class Fss1000(ClassFolders):
    """FSS-1000 (Li et al., 2020): ``<class>/<n>.jpg`` with the mask ``<class>/<n>.png``.

    Masks are read by the rule of `fssbench.data.masks`. The novel classes of the one fold are those
    of the test list, or with ``novel=val`` of the val list. Class ids are indices of the sorted
    folders, independent of the lists.

    Args:
        root: folder of the class folders.
        config: see `Fss1000Config`.

    Raises:
        FssbenchError: the root is missing or contains no folders, or a listed class has no folder.
    """

    name: ClassVar[str] = "fss1000"

    def __init__(self, *, root: Path | None, config: Fss1000Config | None = None) -> None:
        config = config or Fss1000Config()
        super().__init__(root=root, foreground=config.foreground, leave_out=config.leave_out)
        self.novel_split = config.novel
        self.lists = Path(os.path.expanduser(config.lists)) if config.lists else None
        self._listed: dict[str, tuple[str, ...]] = {}
        if self.lists is None:
            log.warning(
                "fss1000 without lists: every class is in train, val and test; the official ones "
                "come with -d lists=FOLDER"
            )
        else:
            self._listed = self._read_lists(self.lists)

    def split_classes(self, split: str) -> Sequence[str]:
        """Return the sorted classes of the split's list; without lists, all classes.

        Raises:
            FssbenchError: the split does not exist or has no list.
        """
        self.check_split(split)
        if self.lists is None:
            return self.classes
        if split not in self._listed:
            raise FssbenchError(
                f"{self.lists}: no {' or '.join(LISTS[split])}, the {split} classes of fss1000"
            )
        return self._listed[split]

    def _read_lists(self, folder: Path) -> dict[str, tuple[str, ...]]:
        files = {
            split: folder / name
            for split, names in LISTS.items()
            for name in reversed(names)
            if (folder / name).is_file()
        }
        if not files:
            raise FssbenchError(
                f"{folder}: holds none of train.txt, val.txt and test.txt; -d lists must name the "
                "folder of the class lists"
            )
        owner: dict[str, Path] = {}
        listed = {}
        for split, path in files.items():
            lines = list_lines(path)
            names = sorted({line.strip() for line in lines if line.strip()})
            for name in names:
                if name not in self.classes:
                    raise FssbenchError(f"{path}: lists {name}, but there is no {self.root / name}")
                if name in owner:
                    raise FssbenchError(f"{path}: lists {name}, as {owner[name].name} does")
                owner[name] = path
            if len(names) != OFFICIAL[split]:
                log.warning(
                    "%s: lists %d classes; the official list has %d",
                    path, len(names), OFFICIAL[split],
                )  # fmt: skip
            listed[split] = tuple(names)
        return listed
