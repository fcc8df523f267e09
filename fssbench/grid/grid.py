"""A grid of evaluations: methods × backbones × folds × shots × seeds, read from a TOML file."""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

import attrs
import cattrs

from fssbench import build, registry, strict
from fssbench.data.dataset import Dataset
from fssbench.episodes.protocol import check_lists
from fssbench.errors import FssbenchError, near
from fssbench.evaluation.evaluation import Evaluation
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.options import configure
from fssbench.results.record import trained_fold
from fssbench.runtime.memory import parse_size
from fssbench.specs import BackboneSpec, MatcherSpec, ProtocolSpec

TABLES = "methods"
AXES = ("matchers", "backbones", "folds", "shots", "seeds")
_FIELDS = ("matcher", "backbone", "fold", "shots", "seed")
_PATHS = ("data_root", "lists", "out", "cache_dir", "checkpoint")
_SIZES = ("cache_memory", "cache_limit")
_EXCLUDED = ("matcher", "backbone", "devices")

Cell = tuple[int, int, int]
"""(fold, shots, seed)."""


@attrs.frozen(kw_only=True)
class Job:
    """The evaluation of one model: one call of `evaluate`.

    Attributes:
        evaluation: evaluation with explicit folds, numbers of shots and seeds.
        dataset: dataset of the images.
    """

    evaluation: Evaluation
    dataset: Dataset = attrs.field(repr=False)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Cells in the order of evaluation."""
        asked = self.evaluation
        return tuple(
            (fold, shots, seed)
            for fold in asked.folds or ()
            for shots in asked.shots
            for seed in asked.seeds
        )


def read_grid(path: Path, **changes: Any) -> list[Job]:
    """Read a grid and check everything that can be checked before anything is measured.

    The file contains attributes of `Evaluation`; ``matchers``, ``backbones``, ``folds``, ``shots``
    and ``seeds`` are lists, whose product is evaluated. Each table ``[[methods]]`` is a grid with
    defaults from the top level of the file. In ``checkpoint``, the fields ``{matcher}``,
    ``{backbone}``, ``{fold}``, ``{shots}`` and ``{seed}`` are replaced by those of the cell.

    Args:
        path: grid file; paths in it are relative to the current directory.
        changes: attributes of all evaluations that override the file.

    Raises:
        FssbenchError: the file cannot be read or is invalid.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise FssbenchError(f"--grid {path}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise FssbenchError(f"--grid {path}: invalid TOML: {error}") from error
    try:
        return _jobs(content, changes)
    except FssbenchError as error:
        raise FssbenchError(f"--grid {path}: {error}") from error


def _jobs(content: Mapping[str, Any], changes: Mapping[str, Any]) -> list[Job]:
    shared = {key: value for key, value in content.items() if key != TABLES}
    tables = content.get(TABLES, [{}])
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise FssbenchError(f"{TABLES}: write tables [[{TABLES}]], at least one")
    datasets: dict[str, Dataset] = {}
    jobs = [job for table in tables for job in _table_jobs({**shared, **table}, changes, datasets)]
    for position, job in enumerate(jobs):
        if job.evaluation in [other.evaluation for other in jobs[:position]]:
            raise FssbenchError(
                f"{job.evaluation.matcher} on {job.evaluation.backbone} is listed twice with the "
                "same options"
            )
    return jobs


def _table_jobs(
    table: Mapping[str, Any], changes: Mapping[str, Any], datasets: dict[str, Dataset]
) -> Iterator[Job]:
    given = {key: _value(key, value) for key, value in table.items()}
    matchers, backbones = given.pop("matchers", None), given.pop("backbones", None)
    if not matchers:
        raise FssbenchError("matchers: name at least one, e.g. matchers = ['prototype']")
    if not backbones:
        raise FssbenchError("backbones: name at least one, e.g. backbones = ['tiny-resnet']")
    known = registry.registry()
    pattern = given.pop("checkpoint", None)
    for matcher in matchers:
        for backbone in backbones:
            evaluation = Evaluation(
                **{
                    **given,
                    "matcher": known.get(MatcherSpec, matcher).name,
                    "backbone": known.get(BackboneSpec, backbone).name,
                    **changes,
                }
            )
            configure(known.get(MatcherSpec, matcher), evaluation.options)
            dataset = _dataset(evaluation, datasets)
            for each in _with_checkpoints(evaluation, pattern, dataset):
                yield Job(evaluation=each, dataset=dataset)


def _value(key: str, value: Any) -> Any:
    """Convert a value of the file to the type of its attribute."""
    hints: dict[str, Any] = typing.get_type_hints(Evaluation)
    names: tuple[str, ...] = tuple(n for n in (*AXES[:2], *hints) if n not in _EXCLUDED)
    if key not in names:
        raise FssbenchError(
            f"unknown key {key!r}; {near(key, (*names, TABLES))}keys: {', '.join(names)}"
        )
    if key in AXES:
        texts = key in AXES[:2]
        kind: Any = tuple[str, ...] if texts else tuple[int, ...]
        value = tuple(dict.fromkeys(_structured(key, value, kind)))
        if not value:
            raise FssbenchError(f"{key}: the list is empty")
        return value
    if key in _PATHS:
        found = _structured(key, value, str)
        return found if key == "checkpoint" else Path(found)
    if key in _SIZES and isinstance(value, str):
        return parse_size(value, key)
    return _structured(key, value, hints[key])


def _structured(key: str, value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        if value in typing.get_args(kind):
            return value
        raise FssbenchError(f"{key}: {value!r} is not one of {', '.join(typing.get_args(kind))}")
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, dict):
            return value
        raise FssbenchError(f"{key}: write a table, e.g. {key} = {{ name = 1 }}")
    choices = typing.get_args(kind)
    wanted = next(k for k in choices if k is not type(None)) if type(None) in choices else kind
    try:
        if wanted is bool and not isinstance(value, bool):
            raise TypeError(value)
        return strict.structure(value, wanted)
    except (cattrs.BaseValidationError, TypeError, ValueError) as error:
        spelt = {int: "a whole number", str: "a text", bool: "true or false"}.get(wanted)
        spelt = (
            spelt or f"a list of {'texts' if str in typing.get_args(wanted) else 'whole numbers'}"
        )
        raise FssbenchError(f"{key}: {value!r} is not {spelt}") from error


def _dataset(evaluation: Evaluation, made: dict[str, Dataset]) -> Dataset:
    """Return the protocol's dataset, and check that it has the requested folds."""
    protocol = registry.registry().get(ProtocolSpec, evaluation.protocol)
    check_lists(protocol, evaluation.lists)
    key = repr((protocol.dataset, evaluation.data_root, sorted(evaluation.data_options.items())))
    if key not in made:
        made[key] = build.dataset(protocol.dataset, evaluation.data_root, **evaluation.data_options)
    for fold in evaluation.folds or ():
        made[key].check_fold(fold)
    return made[key]


def _with_checkpoints(
    evaluation: Evaluation, pattern: str | None, dataset: Dataset
) -> Iterator[Evaluation]:
    """Yield one evaluation, with explicit folds, for each checkpoint file of a pattern."""
    folds = evaluation.folds or tuple(range(dataset.folds))
    if pattern is None:
        yield attrs.evolve(evaluation, folds=folds)
        return
    named = _pattern_fields(pattern)
    files: dict[Path, list[Cell]] = {}
    for fold in folds:
        for shots in evaluation.shots:
            for seed in evaluation.seeds:
                cell = dict(zip(_FIELDS[2:], (fold, shots, seed), strict=True))
                path = Path(
                    pattern.format(matcher=evaluation.matcher, backbone=evaluation.backbone, **cell)
                )
                if not path.is_file():
                    raise FssbenchError(f"checkpoint {path}: there is no such file")
                files.setdefault(path, []).append((fold, shots, seed))
    for path, cells in files.items():
        if evaluation.folds is None and "fold" not in named:
            trained = trained_fold(read_checkpoint(path).header, dataset.name)
            cells = [cell for cell in cells if trained in (None, cell[0])]
        yield attrs.evolve(
            evaluation,
            checkpoint=path,
            folds=_axis(cells, 0),
            shots=_axis(cells, 1),
            seeds=_axis(cells, 2),
        )


def _axis(cells: Sequence[Cell], axis: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(cell[axis] for cell in cells))


def _pattern_fields(pattern: str) -> set[str]:
    try:
        named = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise FssbenchError(f"checkpoint {pattern}: {error}") from error
    unknown = sorted(named - set(_FIELDS))
    if unknown:
        raise FssbenchError(
            f"checkpoint {pattern}: unknown field {{{unknown[0]}}}; use "
            f"{', '.join(f'{{{field}}}' for field in _FIELDS)}"
        )
    return named
