"""What runs in Ray's processes: everything that needs a model. No Ray in here.

The process that was asked for a grid (the driver) needs no model and no GPU: a worker says what a
model's cells are, workers measure ranges of chunks, and a worker makes the record. What goes to and
fro are plain values, so any worker can do, and do again, any piece of work.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pandas

from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError, one_line
from fssbench.evaluation.evaluation import Evaluation
from fssbench.results.record import Record

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Failure:
    """An error as a value: one that is raised would come with a remote traceback.

    Attributes:
        message: one line.
    """

    message: str


@attrs.frozen(kw_only=True)
class Place:
    """A cell as a worker sees it.

    Attributes:
        manifest: its episodes.
        folder: its run directory.
        identity: everything that its rows depend on.
    """

    manifest: Manifest
    folder: Path
    identity: dict[str, Any]


@attrs.frozen(kw_only=True)
class Model:
    """What a worker must know to make the model.

    Attributes:
        evaluation: with absolute paths.
        plugins: those that the user named.
        path: where the driver looks for modules.
    """

    evaluation: Evaluation
    plugins: tuple[str, ...]
    path: tuple[str, ...]

    def key(self) -> str:
        """Equal for equal models."""
        return repr(self)


_made: tuple[str, Any] | None = None


def places(model: Model) -> list[Place] | Failure:
    """The cells that a model is asked for."""

    def found() -> list[Place]:
        bench = _bench(model)
        cells = []
        for manifest in bench.manifests():
            folder, identity = bench.place(manifest)
            cells.append(Place(manifest=manifest, folder=folder, identity=identity))
        return cells

    return _answer(found)


def measure(model: Model, manifest: Manifest, chunks: Sequence[int]) -> list[bytes] | Failure:
    """Parts of some chunks, see `fssbench.evaluation.chunk_result`."""

    def parts() -> list[bytes]:
        every = chunks_of(manifest.episodes)
        asked = {chunk: every[chunk] for chunk in chunks}
        return [part.to_bytes() for part in _bench(model).parts(asked)]

    return _answer(parts)


def record(
    model: Model, manifest: Manifest, rows: pandas.DataFrame, seconds: float, predictions: str
) -> Record | Failure:
    """The record of a cell whose rows are all there."""
    return _answer(
        lambda: _bench(model).record(manifest, rows, seconds=seconds, predictions=predictions)
    )


def _bench(model: Model) -> Any:
    """The model; the last one stays in the process, with the features that it keeps."""
    global _made
    if _made is None or _made[0] != model.key():
        _made = None
        sys.path[:] = [*model.path, *(p for p in sys.path if p not in model.path)]
        from fssbench import registry
        from fssbench.evaluation.evaluate import prepare

        registry.use_plugins(model.plugins)
        _made = model.key(), prepare(model.evaluation)
    return _made[1]


def _answer(do: Callable[[], T]) -> T | Failure:
    try:
        return do()
    except FssbenchError as error:
        return Failure(message=str(error))
    except (MemoryError, RuntimeError) as error:
        return Failure(message=one_line(error))
