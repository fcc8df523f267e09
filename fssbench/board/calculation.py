"""Verification and resampling of many results: in processes, with the values in the cache."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import attrs
import numpy
import pandas
import scipy

import fssbench
from fssbench import registry
from fssbench.data.cache import Array, Arrays, cache_folder, load_arrays, save_arrays
from fssbench.errors import FssbenchError
from fssbench.files import sha256
from fssbench.results.privacy import private_problems
from fssbench.results.record import MANIFEST_FILE, ROWS_FILE
from fssbench.results.result import FILES, Result
from fssbench.results.rows import read_rows
from fssbench.results.verify import known_folds, verified_rows
from fssbench.runtime.code import code_of, identities
from fssbench.specs import DatasetSpec, MetricSpec
from fssbench.statistics.compare import compare_miou, miou_draws
from fssbench.statistics.intervals import MiouSamples, miou_intervals, miou_samples
from fssbench.statistics.sums import SparseSums, Sums

CHUNK = 16
"""Number of results, or of methods, that a process computes at once with the same draws."""

_CHANGED = "its files changed meanwhile; run the same command again"

_PROCESSES = "FSSBENCH_BOARD_PROCESSES"

A = TypeVar("A")
B = TypeVar("B")

Progress = Callable[[str, int, int], None]
"""Function of a task's name, the number of finished items, and the number of all items."""

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class _Files:
    """The files of a result.

    Attributes:
        folder: folder of the files.
        hashes: SHA-256 of each of `FILES`; empty if one cannot be read.
    """

    folder: Path
    hashes: tuple[str, ...]

    @property
    def manifest(self) -> str:
        """SHA-256 of the manifest's file."""
        return self.hashes[FILES.index(MANIFEST_FILE)] if self.hashes else ""


class Calculation:
    """Values of boards that follow from results.

    Values are stored in the cache folder under a hash of everything that they follow from: the
    bytes of the files, which are hashed in each calculation, and the code. Files that change
    during a calculation are an error.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress or (lambda *_: None)
        self._files: dict[Path, _Files] = {}
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Calculation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=kind is not None)

    def problems(self, folders: Sequence[Path]) -> dict[Path, list[str]]:
        """Return the problems and private data of results by folder.

        Equal results are verified once, and their problems name the first of them.
        """
        if len(folders) > CHUNK and _processes() > 1:
            self._started()
        found: dict[Path, list[str]] = {folder: [] for folder in folders}
        unknown: dict[tuple[str, ...] | Path, list[_Files]] = {}  # copies together
        for number, folder in enumerate(folders, start=1):
            files = self._of(folder)
            if not files.hashes or _load(_key("result", files), "sums", len) is None:
                unknown.setdefault(files.hashes or folder, []).append(files)
            self._progress("reading", number, len(folders))
        # Equal manifests together: they are parsed once, and their query images drawn once.
        ordered = sorted(unknown.values(), key=lambda same: (same[0].manifest, same[0].folder))
        values = self._map("verifying", _verify, _chunks([same[0] for same in ordered]))
        for same, wrong in zip(ordered, itertools.chain.from_iterable(values), strict=True):
            found |= dict.fromkeys([files.folder for files in same], wrong)
        return found

    def intervals(self, methods: Sequence[Sequence[Result]]) -> list[tuple[float, float]]:
        """Return the 95 % interval of the mean class mIoU of each method.

        Args:
            methods: results of each method by fold.
        """
        files = [tuple(self._of(result.folder) for result in folds) for folds in methods]
        keys = [_key("interval", *folds) for folds in files]
        found = {key: _load(key, "interval", lambda ends: _interval(*ends)) for key in keys}
        unknown = {key: folds for key, folds in zip(keys, files, strict=True) if found[key] is None}
        alike: dict[tuple[str, ...], list[str]] = {}
        for key, folds in unknown.items():
            alike.setdefault(tuple(f.manifest for f in folds), []).append(key)
        chunks = [chunk for names in alike.values() for chunk in _chunks(names)]
        work = [[unknown[key] for key in chunk] for chunk in chunks]
        for chunk, values in zip(chunks, self._map("intervals", _intervals, work), strict=True):
            for key, value in zip(chunk, values, strict=True):
                found[key] = value
                _save(key, {"interval": numpy.array(value)})
        return [ends for key in keys if (ends := found[key]) is not None]  # all are known

    def comparison(self, methods: Sequence[Sequence[Result]]) -> Callable[[int, int], bool]:
        """Return a function that returns True if the mean class mIoU of two methods differs.

        It takes the indices of the first method of a group and of a later one, and is called in
        the order of `fssbench.board.ranking.group_ranks`. Samples of the next methods whose
        difference is not known are drawn together, and earlier ones are dropped, except those of
        the group's first.

        Args:
            methods: results of each method by fold, best first, all of the same episodes.
        """
        files = [tuple(self._of(result.folder) for result in folds) for folds in methods]
        samples: dict[int, MiouSamples] = {}

        def key(first: int, other: int) -> str:
            return _key("difference", *files[first], *files[other])

        def draw(first: int, other: int) -> None:
            later = range(other + 1, len(files))
            unknown = (
                index for index in later if _load(key(first, index), "significant", bool) is None
            )
            wanted = [first, other, *itertools.islice(unknown, CHUNK * _processes() - 2)]
            for index in samples.keys() - {first}:
                del samples[index]
            new = [index for index in wanted if index not in samples]
            chunks = _chunks([files[index] for index in new])
            drawn = itertools.chain.from_iterable(self._map("", _samples, chunks))
            samples.update(zip(new, drawn, strict=True))

        def differ(first: int, other: int) -> bool:
            known = _load(key(first, other), "significant", bool)
            if known is None:
                if first not in samples or other not in samples:
                    draw(first, other)
                known = compare_miou(samples[first], samples[other]).significant
                _save(key(first, other), {"significant": numpy.array(known)})
            self._progress("ranking", other + 1, len(files))
            return known

        return differ

    def _of(self, folder: Path) -> _Files:
        if folder not in self._files:
            self._files[folder] = _Files(folder=folder, hashes=_hashes(folder))
        return self._files[folder]

    def _map(
        self, task: str, function: Callable[[list[A]], list[B]], chunks: Sequence[list[A]]
    ) -> Iterator[list[B]]:
        """Yield the values of a function of each chunk in order, computed in processes."""
        total, done = sum(map(len, chunks)), 0
        several = len(chunks) > 1 and _processes() > 1
        try:
            for values in (
                self._started().map(function, chunks) if several else map(function, chunks)
            ):
                yield values
                done += len(values)
                if task:
                    self._progress(task, done, total)
        except BrokenProcessPool as error:
            raise FssbenchError(
                f"a process of the board died; if memory is short, set {_PROCESSES}=1"
            ) from error

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            _code()  # once, not in each process
            self._pool = ProcessPoolExecutor(
                _processes(),
                mp_context=multiprocessing.get_context("fork"),
                initializer=_end_with_parent,
            )
            # All processes are forked now, before a progress bar starts a thread.
            self._pool.submit(int).result()
        return self._pool


def _end_with_parent() -> None:
    """End this process when its parent is killed, which leaves the queue of work open."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _processes() -> int:
    """Return the number of processes: the cores of this process, if it can be forked.

    A process that is started anew would not know the plugins that the user's program registered.
    """
    if sys.platform != "linux":
        return 1
    chosen = os.environ.get(_PROCESSES)
    if not chosen:
        return len(os.sched_getaffinity(0))
    if not chosen.isdecimal() or not int(chosen):
        raise FssbenchError(f"{_PROCESSES} is {chosen!r}; set it to a number of processes from 1")
    return int(chosen)


def _chunks(items: Sequence[A]) -> list[list[A]]:
    return [list(items[start : start + CHUNK]) for start in range(0, len(items), CHUNK)]


def _hashes(folder: Path) -> tuple[str, ...]:
    """Return the SHA-256 of each of `FILES`; nothing if one cannot be read."""
    try:
        return tuple(sha256(folder / name) for name in FILES)
    except OSError:
        return ()


def _verify(files: list[_Files]) -> list[list[str]]:
    """Return the problems of each result; the sums of one without problems are stored."""
    found = []
    for each in files:
        wrong, rows = verified_rows(each.folder)
        wrong = wrong or private_problems(each.folder)
        if rows is not None and not wrong:
            if _hashes(each.folder) == each.hashes:
                _save(_key("result", each), _packed(SparseSums.of(Sums.by_query(rows))))
            else:
                wrong = [f"{each.folder}: {_CHANGED}"]
        found.append(wrong)
    return found


def _intervals(methods: list[tuple[_Files, ...]]) -> list[tuple[float, float]]:
    return miou_intervals([[*map(_sums, folds)] for folds in methods])


def _samples(methods: list[tuple[_Files, ...]]) -> list[MiouSamples]:
    return miou_samples([[*map(_sums, folds)] for folds in methods], miou_draws())


def _sums(files: _Files) -> SparseSums:
    """Return the sums of a verified result by query image, from the cache or from the rows."""
    found = load_arrays(_path(_key("result", files)), _unpacked)
    if found is None:
        found = SparseSums.of(Sums.by_query(read_rows(files.folder / ROWS_FILE)))
        if _hashes(files.folder) != files.hashes:
            raise FssbenchError(f"{files.folder}: {_CHANGED}")
    return found


def _packed(sums: SparseSums) -> Arrays:
    values = numpy.stack([sums.where, sums.inter, sums.union, sums.asked])
    kind = numpy.min_scalar_type(int(values.max()))
    return {"sums": values.astype(kind), "shape": numpy.array(sums.shape)}


def _unpacked(arrays: Arrays) -> SparseSums:
    where, inter, union, asked = arrays["sums"]
    images, classes = map(int, arrays["shape"])
    return SparseSums(shape=(images, classes), where=where, inter=inter, union=union, asked=asked)


def _interval(low: float, high: float) -> tuple[float, float]:
    return float(low), float(high)


def _key(kind: str, *files: _Files) -> str:
    """Return the hash of everything that a value follows from."""
    for each in files:
        if not each.hashes:
            raise FssbenchError(f"{each.folder}: cannot read the files of this result")
    facts = [kind, _code(), [each.hashes for each in files]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@functools.cache
def _code() -> str:
    """Return the hash of the code that verifies and resamples, and of what plugins add to it."""
    known = registry.registry()
    metrics = []
    for spec in known.specs(MetricSpec).values():
        try:
            metrics.append(registry.load(spec))
        except FssbenchError as error:
            _log.info("%s is not part of the verification: %s", spec.name, error)
    facts = {
        "code": identities(code_of([fssbench, *metrics])),
        "packages": [package.__version__ for package in (numpy, pandas, scipy)],
        "python": sys.version,
        "metrics": sorted(known.specs(MetricSpec)),
        "folds": {name: known_folds(name) for name in sorted(known.specs(DatasetSpec))},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _path(key: str) -> Path:
    return cache_folder() / "boards" / key[:2] / f"{key}.npz"


def _load(key: str, name: str, read: Callable[[Array], A]) -> A | None:
    return load_arrays(_path(key), lambda arrays: read(arrays[name]))


def _save(key: str, arrays: Arrays) -> None:
    try:
        save_arrays(_path(key), arrays, flush=False)
    except FssbenchError as error:
        _log.info("%s; the value is computed again next time", error)
