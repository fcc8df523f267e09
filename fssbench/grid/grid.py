"""A grid of evaluations: methods × backbones × folds × shots × seeds, read from a TOML file."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Any

import attrs

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.protocol import check_lists
from fssbench.errors import FssbenchError, near
from fssbench.evaluation.evaluation import Evaluation
from fssbench.files import read_toml
from fssbench.hub import file_or_address
from fssbench.matchers.checkpoint import locate_checkpoint, read_checkpoint
from fssbench.model import joined
from fssbench.options import configure
from fssbench.results.record import trained_fold
from fssbench.runtime.memory import parse_size
from fssbench.specs import BackboneSpec, MatcherSpec, ProtocolSpec

TABLES = "methods"
AXES = ("matchers", "backbones", "folds", "shots", "seeds")
_FIELDS = ("matcher", "backbone", "fold", "shots", "seed")
_SIZES = ("cache_memory", "cache_limit")
_EXCLUDED = ("matcher", "backbone", "devices")
_PLAIN = {str: "a text", Path: "a text", int: "a whole number", bool: "true or false"}

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
    def backbone(self) -> str:
        """Name of the backbone, or of the encoders of a matcher on whole images, with ``+``."""
        asked = self.evaluation
        if asked.backbone:
            return asked.backbone
        spec = registry.registry().get(MatcherSpec, asked.matcher)
        return joined({role: str(e) for role, e in build.roles(spec, asked.encoders).items()})

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Cells in the order of evaluation."""
        asked = self.evaluation
        return tuple(product(asked.folds or (), asked.shots, asked.seeds))


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
    content = read_toml(path, f"--grid {path}")
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
            names = f"{job.evaluation.matcher} on {job.backbone}"
            raise FssbenchError(f"{names} is listed twice with the same options")
    return jobs


def _table_jobs(
    table: Mapping[str, Any], changes: Mapping[str, Any], datasets: dict[str, Dataset]
) -> Iterator[Job]:
    given = {key: _value(key, value) for key, value in table.items()}
    known = registry.registry()
    matchers = [known.get(MatcherSpec, name) for name in _named(given, "matchers")]
    # A matcher on whole images has encoders by role instead of a backbone.
    backbones: list[str] = []
    if "backbones" in given or any(spec.encoders is None for spec in matchers):
        backbones = [known.get(BackboneSpec, name).name for name in _named(given, "backbones")]
    pattern = given.pop("checkpoint", None)
    pairs = itertools.chain.from_iterable(
        product([spec], backbones if spec.encoders is None else [""]) for spec in matchers
    )
    for spec, backbone in pairs:
        if spec.encoders is not None or "encoders" in given:
            build.roles(spec, given.get("encoders"))
        names = {"matcher": spec.name, "backbone": backbone}
        evaluation = Evaluation(**{**given, **names, **changes})
        configure(spec, evaluation.options)
        dataset = _dataset(evaluation, datasets)
        for each in _with_checkpoints(evaluation, pattern, dataset):
            yield Job(evaluation=each, dataset=dataset)


def _named(given: dict[str, Any], key: str) -> Any:
    """Remove a required list of names from a table, and return it."""
    if key not in given:
        raise FssbenchError(f"{key}: name at least one, e.g. {key} = ['NAME']")
    return given.pop(key)


def _value(key: str, value: Any) -> Any:
    """Check a value of the file, and convert it to the type of its attribute."""
    hints = typing.get_type_hints(Evaluation)
    texts = {"matchers": tuple[str, ...], "backbones": tuple[str, ...]}
    kinds = {k: kind for k, kind in {**texts, **hints}.items() if k not in _EXCLUDED}
    if key not in kinds:
        near_by = near(key, (*kinds, TABLES))
        raise FssbenchError(f"unknown key {key!r}; {near_by}keys: {', '.join(kinds)}")
    if key in _SIZES and isinstance(value, str):
        return parse_size(value, key)
    kind = kinds[key]
    if type(None) in typing.get_args(kind):
        kind = typing.get_args(kind)[0]  # without None, which TOML does not have
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        fits = isinstance(value, list) and all(type(item) is arguments[0] for item in value)
        expected = f"a list of {'texts' if arguments[0] is str else 'whole numbers'}"
    elif origin is typing.Literal:
        fits, expected = value in arguments, f"one of {', '.join(arguments)}"
    elif origin is Mapping:
        fits, expected = isinstance(value, dict), f"a table, e.g. {key} = {{ name = 1 }}"
    else:
        fits, expected = type(value) is (str if kind is Path else kind), _PLAIN[kind]
    if not fits:
        raise FssbenchError(f"{key}: {value!r} is not {expected}")
    if key in AXES and not value:
        raise FssbenchError(f"{key}: the list is empty")
    if origin is tuple:
        return tuple(dict.fromkeys(value))
    return Path(value) if kind is Path else value


def _dataset(evaluation: Evaluation, made: dict[str, Dataset]) -> Dataset:
    """Return the protocol's dataset, and check that it has the requested folds."""
    protocol = registry.registry().get(ProtocolSpec, evaluation.protocol)
    check_lists(protocol, evaluation.lists)
    key = repr((protocol.name, evaluation.data_root, sorted(evaluation.data_options.items())))
    if key not in made:
        made[key] = build.protocol_dataset(
            protocol.name, evaluation.data_root, **evaluation.data_options
        )
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
    files: dict[str | Path, list[Cell]] = {}
    for cell in product(folds, evaluation.shots, evaluation.seeds):
        values = (evaluation.matcher, evaluation.backbone, *cell)
        given = file_or_address(pattern.format(**dict(zip(_FIELDS, values, strict=True))))
        if not locate_checkpoint(given, "checkpoint")[0].is_file():
            raise FssbenchError(f"checkpoint {given}: there is no such file")
        files.setdefault(given, []).append(cell)
    for given, cells in files.items():
        if evaluation.folds is None and "fold" not in named:
            trained = trained_fold(read_checkpoint(given).header, dataset.folds_of)
            cells = [cell for cell in cells if trained in (None, cell[0])]
        folds, shots, seeds = (tuple(dict.fromkeys(c[axis] for c in cells)) for axis in range(3))
        yield attrs.evolve(evaluation, checkpoint=given, folds=folds, shots=shots, seeds=seeds)


def _pattern_fields(pattern: str) -> set[str]:
    try:
        named = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise FssbenchError(f"checkpoint {pattern}: {error}") from error
    for unknown in sorted(named - set(_FIELDS)):
        fields = ", ".join(f"{{{field}}}" for field in _FIELDS)
        raise FssbenchError(f"checkpoint {pattern}: unknown field {{{unknown}}}; use {fields}")
    return named
