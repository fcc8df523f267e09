"""Preparation of a dataset: find, download and unpack its archives, and write the marker."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import attrs

from fssbench.data.prepare import fss1000
from fssbench.data.prepare.archives import Archive
from fssbench.data.prepare.disk import check_space, check_writable, settle
from fssbench.data.prepare.download import download
from fssbench.data.prepare.marker import Marker, Source
from fssbench.data.prepare.members import first_names, members
from fssbench.data.prepare.recipes import RECIPES, Recipe
from fssbench.errors import FssbenchError
from fssbench.runtime.locks import Lock, LockedError

log = logging.getLogger(__name__)

DOWNLOADS = "downloads"


class PrepareObserver:
    """Progress callbacks; the base class does nothing."""

    def downloading(self, name: str, done: int, total: int | None) -> None:
        """Called with the number of downloaded bytes of an archive."""

    def unpacking(self, name: str, files: int) -> None:
        """Called with the number of unpacked files of an archive."""


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
