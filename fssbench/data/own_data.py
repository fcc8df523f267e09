"""Names and folds of people's own data, which come from the user's options."""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
from attrs.validators import ge

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError, near
from fssbench.specs import DatasetSpec

MOST_CLASSES = np.iinfo(np.int16).max
"""Maximum number of classes; the masks of COCO's files have class ids of 16 bits."""


@attrs.frozen
class OwnDataConfig:
    """Options of all datasets of people's own data.

    Attributes:
        name: name of the data in records and on boards; "" for the name of the ``--data-root``
            folder, in lower case and with ``-`` in place of other characters than letters, digits
            and ``. _ +``.
        folds: number of folds of the classes; with 1, all classes are novel.
        fold_order: classes of fold i of N: i, i + N, i + 2N, … (``interleaved``, as in COCO-20i),
            or the i-th of N runs of consecutive classes (``contiguous``, as in PASCAL-5i).
        novel: names of the novel classes of the only fold, instead of `folds`.
        fold_file: TOML or JSON file, below the root or else the current folder, with ``folds``, a
            list of lists of class names, instead of `folds`; classes in no list are base classes of
            every fold.
    """

    name: str = ""
    folds: int = attrs.field(default=1, validator=ge(1))
    fold_order: Literal["interleaved", "contiguous"] = "interleaved"
    novel: tuple[str, ...] = ()
    fold_file: str = ""


class OwnData(Dataset):
    """Base class of datasets whose name, classes and folds are the user's."""

    splits: tuple[str, ...] = ("train", "val")

    @abstractmethod
    def shares_images(self) -> bool:
        """Return True if both splits have the same images by the user's options."""

    def set_name(self, root: Path, name: str) -> None:
        """Set the name in records and on boards.

        Raises:
            FssbenchError: the name is invalid, or is the name of a registered dataset.
        """
        made = re.sub(r"[^a-z0-9._+-]+", "-", root.resolve().name.lower()).strip("-._+")
        chosen, of = name or made, "" if name else f", made of the folder {root.resolve().name!r},"
        if not re.fullmatch(r"[a-z0-9][a-z0-9._+-]{0,99}", chosen):
            raise FssbenchError(
                f"{type(self).name}: the name {chosen!r}{of} is not valid; give -d name=NAME of "
                "lower-case letters, digits and . _ + -"
            )
        for spec in registry.registry().specs(DatasetSpec).values():
            if chosen in (spec.name, *spec.aliases):
                raise FssbenchError(
                    f"{type(self).name}: the name {chosen!r}{of} is that of a registered dataset; "
                    "give another -d name=NAME"
                )
        self.name = chosen  # type: ignore[misc]  # the registered name remains that of the class

    def set_classes(
        self, classes: Sequence[str], config: OwnDataConfig, root: Path, source: Path
    ) -> None:
        """Set the classes and their folds.

        Args:
            classes: class names.
            config: options of the folds.
            root: folder of ``--data-root``.
            source: file that names the classes, for errors.

        Raises:
            FssbenchError: there are no classes or too many, two have the same name, or the options
                of the folds contradict each other or name unknown classes.
        """
        self.classes = tuple(classes)
        if not classes:
            raise FssbenchError(f"{source}: there are no classes; name at least one")
        if len(classes) > MOST_CLASSES:
            raise FssbenchError(
                f"{source}: there are {len(classes):,} classes, at most {MOST_CLASSES:,} can be "
                "read; divide the data"
            )
        for name, count in Counter(classes).items():
            if count > 1:
                raise FssbenchError(f"{source}: two classes are called {name!r}; rename one")
        given = [f"novel={','.join(config.novel)}"] if config.novel else []
        given += [f"fold_file={config.fold_file}"] if config.fold_file else []
        given += [f"folds={config.folds}"] if config.folds != 1 else []
        if len(given) > 1:
            raise FssbenchError(f"{self.name}: -d {given[0]} and -d {given[1]}: give one of them")
        if config.novel:
            self._folds = self._named([list(config.novel)], f"-d {given[0]}")
        elif config.fold_file:
            path = fold_file(root, config.fold_file)
            self._folds = self._named(read_table(path).get("folds"), str(path))
        else:
            self._folds = self._numbered(config.folds, config.fold_order)
        self.folds = len(self._folds)

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return the novel class ids of a fold."""
        self.check_fold(fold)
        return self._folds[fold]

    def check_trained(self, header: Mapping[str, Any], source: str) -> None:
        """Check that a checkpoint trained on data of this name has the same classes and folds.

        Args:
            header: header of the checkpoint.
            source: option that named the checkpoint, for the error.

        Raises:
            FssbenchError: its training annotations, classes or folds are others.
        """
        own = header.get("dataset") == self.name
        if own and header.get("fingerprint") != self.fingerprint("train"):
            raise FssbenchError(
                f"{source}: it was trained on other annotations or folds of {self.name}, so it may "
                "have seen the classes of these folds; give the --data-root and -d of its training"
            )

    def fold_options(self) -> Mapping[str, str]:
        """Return the folds as an option of the fingerprint; empty if all classes are novel."""
        if self._folds == (tuple(range(len(self.classes))),):
            return {}
        return {"folds": ";".join(",".join(map(str, fold)) for fold in self._folds)}

    def _numbered(self, folds: int, order: str) -> tuple[tuple[int, ...], ...]:
        total = len(self.classes)
        if folds > total:
            raise FssbenchError(
                f"{self.name}: -d folds={folds}: there are {total} classes; give at most {total}"
            )
        if order == "interleaved":
            return tuple(tuple(range(fold, total, folds)) for fold in range(folds))
        starts = [total * fold // folds for fold in range(folds + 1)]
        return tuple(tuple(range(*pair)) for pair in itertools.pairwise(starts))

    def _named(self, folds: Any, source: str) -> tuple[tuple[int, ...], ...]:
        lists = isinstance(folds, list) and all(isinstance(f, list) and f for f in folds)
        if not folds or not lists or not all(isinstance(name, str) for f in folds for name in f):
            raise FssbenchError(f'{source}: write folds = [["a", "b"], ["c"]] with class names')
        ids = {name: class_id for class_id, name in enumerate(self.classes)}
        seen = set[str]()
        for name in (name for fold in folds for name in fold):
            if name not in ids:
                raise FssbenchError(
                    f"{source}: there is no class {name!r}; {near(name, ids)}the classes: "
                    f"{', '.join(self.classes[:20])}{', …' if len(ids) > 20 else ''}"
                )
            if name in seen:
                raise FssbenchError(f"{source}: the class {name!r} is there twice; remove one")
            seen.add(name)
        return tuple(tuple(sorted(ids[name] for name in fold)) for fold in folds)


def fold_file(root: Path, name: str) -> Path:
    """Return the path of the option ``fold_file``: below the root, or else as it is."""
    below = root / name
    return below if below.is_file() else Path(name).expanduser()


def read_table(path: Path) -> dict[str, Any]:
    """Return the content of a TOML or JSON file (by its suffix), a table.

    Raises:
        FssbenchError: the file cannot be read, or contains no table.
    """
    try:
        text = path.read_text("utf-8-sig")
        is_json = path.suffix.lower() == ".json"
        content = json.loads(text, object_pairs_hook=_table) if is_json else tomllib.loads(text)
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError, TOMLDecodeError
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise FssbenchError(f"{path}: is not valid {kind}: {error}; correct the file") from error
    if not isinstance(content, dict):
        raise FssbenchError(f"{path}: contains no table of names and values; correct the file")
    return content


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object; a key that is there twice is an error, as in TOML."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key {key!r} is there twice")
    return dict(pairs)


def own_root(dataset: str, root: Path | None, needs: str) -> Path:
    """Return the folder of ``--data-root``.

    Args:
        dataset: registered name of the dataset, for errors.
        root: the option's value.
        needs: content of the folder, for errors.

    Raises:
        FssbenchError: there is no such folder.
    """
    if root is None:
        raise FssbenchError(f"{dataset} needs --data-root, {needs}")
    if not root.is_dir():
        raise FssbenchError(f"{dataset}: no folder {root}; --data-root must name {needs}")
    return root


def of_split(pattern: str, split: str) -> str:
    """Return a path of the user's options with a split in place of ``{split}``."""
    return pattern.replace("{split}", split)
