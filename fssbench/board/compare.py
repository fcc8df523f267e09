"""Comparison of two methods on the same episodes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import attrs

from fssbench.board.labels import Labels
from fssbench.errors import FssbenchError
from fssbench.results.method import method_id
from fssbench.results.record import RECORD_FILE, Record
from fssbench.results.result import Result, find_results, read_result
from fssbench.results.verify import problems
from fssbench.statistics.compare import Comparison, compare

_SETTING = {
    "dataset": "dataset.name",
    "protocol": "protocol",
    "split": "dataset.split",
    "shots": "shots",
    "seed": "seed",
    "score size": "score_size",
}
"""Attributes of a record, by name in messages, that are equal in comparable records."""


@attrs.frozen(kw_only=True)
class Choice:
    """Selection of records in a folder; None for all folds, or for the only value."""

    folds: tuple[int, ...] | None = None
    shots: int | None = None
    seed: int | None = None


@attrs.frozen(kw_only=True)
class Paired:
    """Two methods, their results by fold, and their differences.

    Attributes:
        a, b: results by fold, with equal folds in ascending order.
        comparison: comparison of their rows.
    """

    a: Mapping[int, Result]
    b: Mapping[int, Result]
    comparison: Comparison

    @property
    def folds(self) -> tuple[int, ...]:
        """Compared folds, ascending."""
        return tuple(self.a)

    @property
    def record(self) -> Record:
        """A record; protocol, data, shots and seed are equal in all."""
        return self.a[self.folds[0]].record

    @property
    def labels(self) -> tuple[str, str]:
        """Labels of a and b: matcher, differing options, encoder."""
        sides = [[result.record for result in side.values()] for side in (self.a, self.b)]
        labels = Labels(records[0] for records in sides)
        a, b = (f"{labels.method(side)} on {labels.backbone(side[0])}" for side in sides)
        return a, b

    def class_name(self, fold: int, class_id: int) -> str:
        """Return the name of a class of a fold."""
        names = {entry.class_id: entry.name for entry in self.a[fold].record.per_class}
        return names.get(class_id, str(class_id))

    def to_fields(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        record, result = self.record, self.comparison
        return {
            **{
                name: {"label": label, "records": {str(f): str(r.folder) for f, r in side.items()}}
                for name, label, side in zip("ab", self.labels, (self.a, self.b), strict=True)
            },
            **{name: getattr(record, name) for name in ("protocol", "shots", "seed")},
            "digests": {str(f): r.record.manifest.digest for f, r in self.a.items()},
            "scores": {name: attrs.asdict(value) for name, value in result.scores.items()},
            "folds": {
                str(fold): {name: attrs.asdict(value) for name, value in scores.items()}
                for fold, scores in zip(self.folds, result.folds, strict=True)
            },
            "classes": [
                {
                    "fold": (fold := self.folds[line.table]),
                    "class_id": line.class_id,
                    "name": self.class_name(fold, line.class_id),
                    "episodes": line.episodes,
                    "images": line.images,
                    **attrs.asdict(line.iou),
                }
                for line in result.classes
            ],
            "episodes": {"wins": result.wins, "ties": result.ties, "losses": result.losses},
            "images": dict(zip(map(str, self.folds), result.images, strict=True)),
        }


def compare_paths(a: Path, b: Path, choice: Choice | None = None) -> Paired:
    """Compare two methods by their records.

    Args:
        a: a ``record.json``, a run directory, or a folder with the folds of one method.
        b: path of the other method; differences are b - a.
        choice: selection of records in the folders.

    Raises:
        FssbenchError: the records of a path are not of one method and setting; a record does not
            follow from its rows; or the episodes of the methods differ.
    """
    choice = choice or Choice()
    side_a, side_b = (_side(path, choice) for path in (a, b))
    _check_comparable(side_a, side_b)
    for result in (*side_a.values(), *side_b.values()):
        for problem in problems(result.folder, intervals=False):
            raise FssbenchError(problem)
    pairs = [(side_a[fold].rows(), side_b[fold].rows()) for fold in side_a]
    return Paired(a=side_a, b=side_b, comparison=compare(pairs))


def _side(path: Path, choice: Choice) -> dict[int, Result]:
    """Return the results of one method and setting by fold, in ascending order."""
    if path.is_file():
        if path.name != RECORD_FILE:
            raise FssbenchError(f"{path}: name a {RECORD_FILE}, or a folder that holds some")
        folders = [path.parent]
    else:
        folders = find_results([path])
    found = [read_result(folder) for folder in folders]
    chosen = [
        result
        for result in found
        if (choice.folds is None or result.record.fold in choice.folds)
        and choice.shots in (None, result.record.shots)
        and choice.seed in (None, result.record.seed)
    ]
    if not chosen:
        records = [result.record for result in found]
        there = sorted({f"fold {r.fold} {r.shots}-shot seed {r.seed}" for r in records})
        raise FssbenchError(f"{path}: no such record; there are {_some(there)}")
    methods = {method_id(result.record): str(result.folder) for result in chosen}
    if len(methods) > 1:
        which = f"{len(methods)} methods or protocols, e.g. {_some([*methods.values()])}"
        raise FssbenchError(f"{path}: records of {which}; name the folder of one")
    for name in ("shots", "seed"):
        values = sorted({getattr(result.record, name) for result in chosen})
        if len(values) > 1:
            which = f"{name} {_list(values)}; choose with --{name} {values[0]}"
            raise FssbenchError(f"{path}: records of {which}")
    chosen.sort(key=lambda result: result.record.fold)
    for one, other in itertools.pairwise(chosen):
        if one.record.fold == other.record.fold:
            both = f"{one.folder} and {other.folder}"
            raise FssbenchError(f"{path}: two records of fold {one.record.fold}: {both}; name one")
    side = {result.record.fold: result for result in chosen}
    missing = sorted(set(choice.folds or ()) - set(side))
    if missing:
        raise FssbenchError(f"{path}: no record of fold {_list(missing)}; it has {_list(side)}")
    return side


def _check_comparable(a: Mapping[int, Result], b: Mapping[int, Result]) -> None:
    """Raise an error unless both sides have the same episodes, data and scoring."""
    differ = []
    for name, key in _SETTING.items():
        one, other = (attrgetter(key)(side[min(side)].record) for side in (a, b))
        if one != other:
            differ.append(f"{name} ({one} and {other})")
    if set(a) != set(b):
        differ.append(f"folds ({_list(a)} and {_list(b)}; choose common ones with --fold)")
    for fold in sorted(set(a) & set(b)):
        data = [side[fold].record.dataset.fingerprint for side in (a, b)]
        if data[0] != data[1]:
            differ.append(f"annotations of the data ({data[0][:8]} and {data[1][:8]})")
        infos = [side[fold].record.manifest for side in (a, b)]
        if infos[0].digest != infos[1].digest:
            both = ", and ".join(f"{i.digest[:8]}, {i.episodes} episodes" for i in infos)
            differ.append(f"digest of fold {fold} ({both})")
    if differ:
        which = ", ".join(dict.fromkeys(differ))
        raise FssbenchError(
            f"these records are not of the same episodes: they differ in {which}; evaluate both on "
            "one manifest"
        )


def _list(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"
