"""Preparation of a dataset: find, download and unpack its archives, and write the marker."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from fssbench.data import pascal_part
from fssbench.data.cross_domain import isic
from fssbench.data.prepare import coco, cross_domain, davis, fss1000, paco, pascal
from fssbench.data.prepare.archives import ARCHIVES, Archive
from fssbench.data.prepare.disk import check_space, check_writable, settle
from fssbench.data.prepare.download import download
from fssbench.data.prepare.marker import Marker, Source
from fssbench.data.prepare.members import Member, first_names, members
from fssbench.errors import FssbenchError, near
from fssbench.runtime.locks import Lock, LockedError

log = logging.getLogger(__name__)

YEARS = ("2014", "2017")
DOWNLOADS = "downloads"

Unpack = Callable[[Iterator[Member], Path], Iterator[str]]


class PrepareObserver:
    """Progress callbacks; the base class does nothing."""

    def downloading(self, name: str, done: int, total: int | None) -> None:
        """Called with the number of downloaded bytes of an archive."""

    def unpacking(self, name: str, files: int) -> None:
        """Called with the number of unpacked files of an archive."""


@attrs.frozen(kw_only=True)
class Recipe:
    """Steps to prepare a dataset.

    Attributes:
        name: name of the dataset; for COCO with the year.
        unpack: functions that write the files of each archive, by ordered archive key.
        finish: last step; returns counts of the files.
        made: created folders, which must be empty or missing at the start.
        root: folder for ``--data-root``, relative to ``--to``.
        official: counts of the complete dataset.
    """

    name: str
    unpack: Mapping[str, Unpack]
    finish: Callable[[Path], Mapping[str, int]]
    made: tuple[str, ...]
    root: str = "."
    official: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def dataset(self) -> str:
        """Registered name of the dataset."""
        return re.sub(r"-\d{4}$", "", self.name)

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Official archives of the dataset."""
        return ARCHIVES[self.name]


@attrs.frozen(kw_only=True)
class Prepared:
    """Result of a preparation.

    Attributes:
        recipe: steps of the preparation.
        marker: used archives and counts of files.
        already: True if the dataset was complete before.
        data_root: folder for ``--data-root``.
        downloads: downloaded archives, which may be removed.
    """

    recipe: Recipe
    marker: Marker
    already: bool
    data_root: Path
    downloads: tuple[Path, ...]


def _coco(year: str, train: int, val: int) -> Recipe:
    return Recipe(
        name=f"coco20i-{year}",
        unpack={
            f"annotations_trainval{year}": coco.unpack_annotations,
            f"val{year}": coco.unpack_images(f"val{year}"),
            f"train{year}": coco.unpack_images(f"train{year}"),
        },
        finish=coco.finish(year),
        made=(f"train{year}", f"val{year}"),
        official={"annotations": 2, f"train{year}": train, f"val{year}": val},
    )


def _one_folder(
    name: str, folder: str, unpack: Mapping[str, Unpack], *, images: str, masks: str,
    official: tuple[int, int],
) -> Recipe:  # fmt: skip
    """Return the recipe of a dataset of images and masks in one folder."""
    return Recipe(
        name=name,
        unpack=unpack,
        finish=cross_domain.finish(folder, images=images, masks=masks),
        made=(folder,),
        root=folder,
        official=dict(zip(("images", "masks"), official, strict=True)),
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="pascal5i",
            unpack={"voc": pascal.unpack_voc, "sbd": pascal.unpack_sbd},
            finish=pascal.finish,
            made=(pascal.ROOT,),
            official={
                "JPEGImages": 17_125, "SegmentationClass": 2913, "SegmentationClassAug": 12_031,
                "val.txt": 1449, "train_aug.txt": 10_582,
            },
        ),
        _coco("2014", 82_783, 40_504),
        _coco("2017", 118_287, 5000),
        Recipe(
            name="fss1000",
            unpack={"fss": fss1000.unpack},
            finish=fss1000.finish,
            made=(fss1000.ROOT,),
            root=fss1000.ROOT,
            official={"classes": 1000, "pictures": 10_000, "masks": 10_000},
        ),
        Recipe(
            name="paco-part",
            unpack={
                "paco_lvis_v1": paco.unpack_annotations,
                "val2017": paco.unpack_images("val2017"),
                "train2017": paco.unpack_images("train2017"),
            },
            finish=paco.finish,
            made=(paco.ROOT,),
            root=paco.ROOT,
            official={"annotations": 3, "train2017": 118_287, "val2017": 5000},
        ),
        Recipe(
            name="davis17",
            unpack={"trainval": davis.unpack},
            finish=davis.finish,
            made=(davis.ROOT,),
            root=davis.ROOT,
            official={"val.txt": 30},
        ),
        _one_folder(
            "deepglobe", "DeepGlobe", {"land": cross_domain.unpack_tiles},
            images="images/*.png", masks="masks/*.png", official=(9174, 9174),
        ),
        _one_folder(
            "isic2018", "ISIC2018",
            dict.fromkeys(("images", "masks"), cross_domain.unpack("ISIC2018")),
            images=f"{isic.IMAGES}/*.jpg", masks=f"{isic.MASKS}/*.png", official=(2594, 2594),
        ),
        _one_folder(
            "chest-xray", "ChestXray", {"xrays": cross_domain.unpack("ChestXray")},
            images="CXR_png/*.png", masks="masks/*.png", official=(800, 704),
        ),
        _one_folder(
            "suim", "SUIM", {"suim": cross_domain.unpack("SUIM")},
            images="*/images/*.jpg", masks="*/masks/*.bmp", official=(1635, 1635),
        ),
        _one_folder(
            "isaid5i", "iSAID-5i", {"tiles": cross_domain.unpack("iSAID-5i")},
            images="val/images/*.png", masks="val/semantic_png/*.png", official=(6363, 6363),
        ),
        Recipe(
            name="pascal-part",
            unpack=dict.fromkeys(("voc2010", "parts"), cross_domain.unpack("Pascal-Part")),
            finish=cross_domain.finish(
                "Pascal-Part", JPEGImages=f"{pascal_part.IMAGES}/*.jpg",
                annotations=f"{pascal_part.PARTS}/*.json", lists=pascal_part.LIST,
            ),
            made=("Pascal-Part",),
            root="Pascal-Part",
            official={"JPEGImages": 11_321},
        ),
        Recipe(
            name="lvis92i",
            unpack={
                "lvis_v1_val": coco.unpack_lvis,
                "lvis_v1_train": coco.unpack_lvis,
                "val2017": coco.unpack_images("val2017"),
                "train2017": coco.unpack_images("train2017"),
            },
            finish=coco.finish("2017", "lvis_v1_*.json"),
            made=("train2017", "val2017"),
            official={"annotations": 2, "train2017": 118_287, "val2017": 5000},
        ),
    )
}  # fmt: skip


def find_recipe(dataset: str, year: str = "2014") -> Recipe:
    """Return the recipe of a dataset.

    Raises:
        FssbenchError: the dataset has no recipe.
    """
    name = {"pascal": "pascal5i", "coco": "coco20i"}.get(dataset, dataset)
    if name == "coco20i":
        name = f"{name}-{year}"
    if name not in RECIPES:
        known = list(dict.fromkeys(recipe.dataset for recipe in RECIPES.values()))
        raise FssbenchError(
            f"{dataset!r} cannot be prepared; {near(dataset, known)}known: {', '.join(known)}"
        )
    return RECIPES[name]


def prepare(
    recipe: Recipe,
    to: Path,
    *,
    given: Sequence[Path] = (),
    fetch: bool = False,
    observer: PrepareObserver | None = None,
) -> Prepared:
    """Create the folders of a dataset from its official archives.

    After an interruption, call it again: finished archives and files are skipped, and downloads
    are resumed. If the dataset is complete, nothing is changed.

    Args:
        recipe: steps of the preparation.
        to: target folder.
        given: existing archives, in any order and with any names.
        fetch: download missing archives into ``to/downloads``.
        observer: progress callbacks.

    Raises:
        FssbenchError: an archive is missing, wrong, damaged or malicious; the disk is full or not
            writable; or the folder contains data that `prepare` did not create.
    """
    observer = observer or PrepareObserver()
    if to.exists() and not to.is_dir():
        raise FssbenchError(f"{to}: is a file; --to must name a folder")
    known = Marker.read(to, recipe.name)
    if known is None:
        _check_nothing_there(recipe, to)
    elif known.complete and not _intact(recipe, known, to):
        log.warning("%s: files are missing; they are unpacked again", to)
        known = attrs.evolve(known, complete=False, sources={})
    found = {**_downloaded(recipe, to), **_recognised(recipe, given)}
    if known and known.complete and not given:
        return _prepared(recipe, known, to, already=True)
    done = known.sources if known else {}
    missing = [a for a in recipe.archives if a.key not in found and a.key not in done]
    if missing and not fetch:
        files = " and ".join(f"{archive.file} ({archive.url})" for archive in missing)
        raise FssbenchError(
            f"{recipe.name} still needs {files}: give it with --from, or let --download fetch it"
        )
    check_writable(to)
    needed = sum(_estimate(found[a.key]) for a in recipe.archives if a.key in found.keys() - done)
    needed += sum(_estimate_of_download(archive, to) for archive in missing)
    check_space(to, needed - _used(recipe, to), f"preparing {recipe.name}")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(Lock(to / f".prepared-{recipe.name}.lock", "dataset", timeout=1))
        except LockedError as error:
            raise FssbenchError(
                f"{to}: another process prepares {recipe.name} here ({error}); wait"
            ) from error
        marker = known or Marker(dataset=recipe.name)
        if not marker.complete:
            marker.write(to)
        already = marker.complete
        for archive in recipe.archives:
            path = found.get(archive.key)
            if path is None and archive.key in marker.sources:
                continue
            if path is None:
                folder = to / DOWNLOADS
                folder.mkdir(exist_ok=True)
                path = download(
                    archive,
                    folder,
                    lambda so_far, total, name=archive.file: observer.downloading(
                        name, so_far, total
                    ),  # type: ignore[misc]
                )
            source = _source(path, archive)
            _check_same(marker.begun.get(archive.key), source, to)
            if archive.key in marker.sources:
                continue
            already = False
            begun = {**marker.begun, archive.key: source}
            marker = attrs.evolve(marker, complete=False, begun=begun)
            marker.write(to)
            _unpack(recipe, archive, path, to, observer)
            settle()
            marker = attrs.evolve(marker, sources={**marker.sources, archive.key: source})
            marker.write(to)
        if not already:
            marker = attrs.evolve(marker, counts=dict(recipe.finish(to)), complete=True)
            settle()
            marker.write(to)
    return _prepared(recipe, marker, to, already=already)


def _check_nothing_there(recipe: Recipe, to: Path) -> None:
    others = (other for other in RECIPES.values() if Marker.read(to, other.name))
    for name in set(recipe.made).difference(*(other.made for other in others)):
        if (to / name).is_dir() and any((to / name).iterdir()):
            raise FssbenchError(
                f"{to / name}: already exists and was not made by data prepare; choose another "
                "folder"
            )


def _intact(recipe: Recipe, marker: Marker, to: Path) -> bool:
    try:
        return dict(recipe.finish(to)) == dict(marker.counts)
    except (FssbenchError, OSError):
        return False


def _downloaded(recipe: Recipe, to: Path) -> dict[str, Path]:
    """Return the completely downloaded archives by key."""
    paths = {archive.key: to / DOWNLOADS / archive.file for archive in recipe.archives}
    return {key: path for key, path in paths.items() if path.is_file()}


def _recognised(recipe: Recipe, given: Sequence[Path]) -> dict[str, Path]:
    """Return the given files by archive key, identified by their members, not by their names."""
    found: dict[str, Path] = {}
    for path in given:
        if not path.is_file():
            raise FssbenchError(f"{path}: no such file; --from must name an archive")
        names = first_names(path)
        fitting = [archive for archive in recipe.archives if _holds(archive, names)]
        if not fitting:
            needed = " and ".join(archive.file for archive in recipe.archives)
            shown = f"holds {names[0]}, …" if names else "holds no file"
            raise FssbenchError(
                f"{path}: is no archive of {recipe.name} ({shown}); it needs {needed}"
            )
        key = fitting[0].key
        if key in found:
            raise FssbenchError(f"{path}: is {fitting[0].file}, as {found[key]} is; give one")
        found[key] = path
    return found


def _holds(archive: Archive, names: Sequence[str]) -> bool:
    if archive.holds:
        return any(name.removeprefix("./").startswith(archive.holds) for name in names)
    pattern = re.compile(archive.matches) if archive.matches else fss1000.PICTURE
    return any(pattern.fullmatch(name) for name in names)


def _source(path: Path, archive: Archive) -> Source:
    """Compute the digests of an archive, and warn if they differ from the published ones."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    wanted = [sha256] if archive.sha256 or not archive.md5 else [sha256, md5]
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                for hasher in wanted:
                    hasher.update(block)
            size = file.tell()
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
    official: bool | None = None
    if archive.digest:
        found = {"sha256": sha256, "md5": md5}[archive.digest[0]].hexdigest()
        official = found == archive.digest[1]
        if not official:
            log.warning(
                "%s: is not the published %s (%s %s); its contents are used as they are",
                path, archive.file, archive.digest[0], found,
            )  # fmt: skip
    return Source(file=path.name, size=size, sha256=sha256.hexdigest(), official=official)


def _check_same(before: Source | None, now: Source, to: Path) -> None:
    """Raise if the archive differs from the one that was unpacked before."""
    if before is not None and before.sha256 != now.sha256:
        raise FssbenchError(
            f"{to}: was made of another {before.file} (sha256 {before.sha256[:12]}…, not "
            f"{now.sha256[:12]}…); choose another folder"
        )


def _unpack(
    recipe: Recipe, archive: Archive, path: Path, to: Path, observer: PrepareObserver
) -> None:
    files = 0
    for files, _ in enumerate(recipe.unpack[archive.key](members(path, archive), to), start=1):
        observer.unpacking(archive.file, files)
    if not files:
        raise FssbenchError(
            f"{path}: holds nothing that {recipe.name} needs of {archive.file}; it is another "
            "archive, or not whole"
        )


def _estimate(path: Path) -> int:
    """Estimate the unpacked bytes of an archive: images as packed, JSON four times."""
    return path.stat().st_size * _times(path.name)


def _estimate_of_download(archive: Archive, to: Path) -> int:
    """Estimate the bytes of the rest of a download and of its unpacked files."""
    size = archive.size or 0  # if unknown, checked when the download starts
    part = to / DOWNLOADS / f"{archive.file}.part"
    there = part.stat().st_size if part.exists() else 0
    return max(size - there, 0) + size * _times(archive.file)


def _times(name: str) -> int:
    return 4 if "annotations" in name or ".json" in name else 1


def _used(recipe: Recipe, to: Path) -> int:
    """Return the bytes of files that an interrupted call has unpacked."""
    files = (path for name in recipe.made for path in (to / name).rglob("*"))
    return sum(path.stat().st_size for path in files if path.is_file())


def _prepared(recipe: Recipe, marker: Marker, to: Path, *, already: bool) -> Prepared:
    left = [to / DOWNLOADS / archive.file for archive in recipe.archives]
    return Prepared(
        recipe=recipe,
        marker=marker,
        already=already,
        data_root=to / recipe.root,
        downloads=tuple(path for path in left if path.exists()),
    )
