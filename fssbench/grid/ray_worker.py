"""Functions that run in Ray's processes, without importing Ray: everything that needs a model.

The driver needs no model and no GPU: workers list the cells of a model, measure ranges of chunks,
and create the record. Arguments and results are plain values, so any worker can run, and retry, any
task.
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
    """An error as a value, because a raised error would include a remote traceback.

    Attributes:
        message: error message of one line.
    """

    message: str


@attrs.frozen
class CellInfo:
    """A cell and its run directory.

    Attributes:
        manifest: episodes of the cell.
        folder: run directory.
        identity: everything that the rows depend on.
    """

    manifest: Manifest
    folder: Path
    identity: dict[str, Any]


@attrs.frozen(kw_only=True)
class Model:
    """The settings from which a worker builds the model.

    Attributes:
        evaluation: evaluation with absolute paths.
        plugins: plugins that the user named.
        path: module search path of the driver.
    """

    evaluation: Evaluation
    plugins: tuple[str, ...]
    path: tuple[str, ...]


_last_evaluator: tuple[str, Any] | None = None


def cells(model: Model) -> list[CellInfo] | Failure:
    """Return the requested cells of a model."""

    def found() -> list[CellInfo]:
        evaluator = _evaluator(model)
        manifests = evaluator.manifests()
        evaluator.training.warn(manifests)
        return [
            CellInfo(each, evaluator.folder(each), evaluator.identity(each)) for each in manifests
        ]

    return _result_of(found)


def measure(model: Model, manifest: Manifest, chunks: Sequence[int]) -> list[bytes] | Failure:
    """Measure some chunks; return their results, see `fssbench.evaluation.chunk_result`."""

    def results() -> list[bytes]:
        every = chunks_of(manifest.episodes)
        asked = {chunk: every[chunk] for chunk in chunks}
        return [result.to_bytes() for result in _evaluator(model).measure(asked)]

    return _result_of(results)


def record(
    model: Model, manifest: Manifest, rows: pandas.DataFrame, seconds: float, predictions: str,
    images: str,
) -> Record | Failure:  # fmt: skip
    """Return the record of a cell whose rows are complete."""
    return _result_of(
        lambda: _evaluator(model).record(
            manifest, rows, seconds=seconds, predictions=predictions, images=images
        )
    )


def _evaluator(model: Model) -> Any:
    """Return the model's evaluator; the last one stays in the process with its feature cache."""
    global _last_evaluator
    if _last_evaluator is None or _last_evaluator[0] != repr(model):
        _last_evaluator = None
        sys.path[:] = [*model.path, *(p for p in sys.path if p not in model.path)]
        from fssbench import registry
        from fssbench.evaluation.evaluate import prepare

        registry.use_plugins(model.plugins)
        _last_evaluator = repr(model), prepare(model.evaluation)
    return _last_evaluator[1]


def _result_of(function: Callable[[], T]) -> T | Failure:
    try:
        return function()
    except FssbenchError as error:
        return Failure(message=str(error))
    except (MemoryError, RuntimeError) as error:
        return Failure(message=one_line(error))
