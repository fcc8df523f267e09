"""Comparing the records of two methods, when they answered the same episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fssbench.board.labels import backbone_label, method_label
from fssbench.errors import FssbenchError
from fssbench.results.method import method_id
from fssbench.results.record import RECORD_FILE, Record
from fssbench.results.result import Result, find_results, read_result
from fssbench.results.verify import problems
from fssbench.statistics.compare import Comparison, compare

# Of one protocol, shots and seed; a record of anything else is of another question.
_SETTING = ("dataset", "protocol", "split", "shots", "seed", "score size")


@attrs.frozen(kw_only=True)
class Choice:
    """Which of the records in a folder are meant; None for all, or for the only one there is."""

    folds: tuple[int, ...] | None = None
    shots: int | None = None
    seed: int | None = None


@attrs.frozen(kw_only=True)
class Paired:
    """Two methods, their records by fold, and how they differ.

    Attributes:
        a, b: results by fold, of the same folds.
        comparison: of their rows; folds in ascending order.
    """

    a: Mapping[int, Result]
    b: Mapping[int, Result]
    comparison: Comparison

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds compared, ascending."""
        return tuple(self.a)

    @property
    def record(self) -> Record:
        """One record: what it says of protocol, data, shots and seed is true of all."""
        return self.a[self.folds[0]].record

    @property
    def labels(self) -> tuple[str, str]:
        """What a and b are called: matcher, options that tell them apart, encoder."""
        sides = [[result.record for result in side.values()] for side in (self.a, self.b)]
        peers = [records[0] for records in sides]
        first, second = (
            f"{method_label(records, peers)} on {backbone_label(records[0], peers)}"
            for records in sides
        )
        return first, second

    def class_name(self, fold: int, class_id: int) -> str:
        """Name of a class that a fold asked for."""
        names = {entry.class_id: entry.name for entry in self.a[fold].record.per_class}
        return names.get(class_id, str(class_id))

    def to_fields(self) -> dict[str, Any]:
        """Everything as JSON has it."""
        record, result = self.record, self.comparison
        return {
            **{
                name: {"label": label, "records": {str(f): str(r.folder) for f, r in side.items()}}
                for name, label, side in zip("ab", self.labels, (self.a, self.b), strict=True)
            },
            "protocol": record.protocol,
            "shots": record.shots,
            "seed": record.seed,
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
        b: likewise; differences are b - a.
        choice: which of the records in the folders are meant.

    Raises:
        FssbenchError: a path does not hold the records of one method and setting; a record does
            not follow from its rows; or the two did not answer the same episodes, and then the
            message says what differs.
    """
    choice = choice or Choice()
    side_a, side_b = (_side(path, choice) for path in (a, b))
    _check_comparable(side_a, side_b)
    for result in (*side_a.values(), *side_b.values()):
        for problem in problems(result.folder, intervals=False):
            raise FssbenchError(problem)
    return compare_results(side_a, side_b)


def compare_results(
    a: Mapping[int, Result], b: Mapping[int, Result], *, resamples: int = 10_000
) -> Paired:
    """Compare results by fold; they must be of equal digests."""
    pairs = [(a[fold].rows(), b[fold].rows()) for fold in a]
    return Paired(a=a, b=b, comparison=compare(pairs, resamples=resamples))


def _side(path: Path, choice: Choice) -> dict[int, Result]:
    """The results of one method and setting, by fold."""
    if path.is_file():
        if path.name != RECORD_FILE:
            raise FssbenchError(f"{path}: name a {RECORD_FILE}, or a folder that holds some")
        folders = [path.parent]
    else:
        folders = find_results([path])
    found = [read_result(folder) for folder in folders]
    chosen = [result for result in found if _is_meant(result.record, choice)]
    if not chosen:
        there = sorted({_name_of(result.record) for result in found})
        raise FssbenchError(f"{path}: no record of what was chosen; there are {_some(there)}")
    methods = {method_id(result.record): result.folder for result in chosen}
    if len(methods) > 1:
        raise FssbenchError(
            f"{path}: records of {len(methods)} methods or protocols, e.g. "
            f"{_some([str(folder) for folder in methods.values()])}; name the folder of one"
        )
    for name in ("shots", "seed"):
        values = sorted({getattr(result.record, name) for result in chosen})
        if len(values) > 1:
            raise FssbenchError(
                f"{path}: records of {name} {_list(values)}; choose with --{name} {values[0]}"
            )
    side: dict[int, Result] = {}
    for result in sorted(chosen, key=lambda result: result.record.fold):
        fold = result.record.fold
        if fold in side:
            raise FssbenchError(
                f"{path}: two records of fold {fold}: {side[fold].folder} and {result.folder}; "
                "name one of them"
            )
        side[fold] = result
    missing = sorted(set(choice.folds or ()) - set(side))
    if missing:
        raise FssbenchError(f"{path}: no record of fold {_list(missing)}; it has {_list(side)}")
    return side


def _is_meant(record: Record, choice: Choice) -> bool:
    return (
        (choice.folds is None or record.fold in choice.folds)
        and choice.shots in (None, record.shots)
        and choice.seed in (None, record.seed)
    )


def _check_comparable(a: Mapping[int, Result], b: Mapping[int, Result]) -> None:
    """Raise unless both sides answered the same episodes of the same data, scored alike."""
    record_a, record_b = (side[min(side)].record for side in (a, b))
    differ = [
        f"{name} ({one} and {other})"
        for name, one, other in zip(_SETTING, _setting(record_a), _setting(record_b), strict=True)
        if one != other
    ]
    if set(a) != set(b):
        differ.append(f"folds ({_list(a)} and {_list(b)}; choose common ones with --fold)")
    for fold in sorted(set(a) & set(b)):
        one, other = a[fold].record, b[fold].record
        data = one.dataset.fingerprint, other.dataset.fingerprint
        if data[0] != data[1]:
            differ.append(f"annotations of the data ({data[0][:8]} and {data[1][:8]})")
        digests = one.manifest.digest, other.manifest.digest
        if digests[0] != digests[1]:
            differ.append(
                f"digest of fold {fold} ({digests[0][:8]}, {one.manifest.episodes} episodes, and "
                f"{digests[1][:8]}, {other.manifest.episodes} episodes)"
            )
    if differ:
        raise FssbenchError(
            f"these records did not answer the same episodes: they differ in "
            f"{', '.join(dict.fromkeys(differ))}; evaluate both on one manifest"
        )


def _setting(record: Record) -> tuple[object, ...]:
    dataset = record.dataset
    return (
        dataset.name,
        record.protocol,
        dataset.split,
        record.shots,
        record.seed,
        record.score_size,
    )


def _name_of(record: Record) -> str:
    return f"fold {record.fold} {record.shots}-shot seed {record.seed}"


def _list(values: Sequence[int] | Mapping[int, Any]) -> str:
    return ", ".join(map(str, values))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}"
