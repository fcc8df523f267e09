"""Ranks, and the reasons why a row has none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TypeVar

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.results.record import Record
from fssbench.results.result import Result
from fssbench.specs import ProtocolSpec

REPLAY = "replay of a published protocol"
"""Reason why a row has no rank: the list files of such a protocol cannot be checked."""

HARMONIC = "harmonic_mean"
MIXED = "the mean is mostly over base classes; compare harmonic means"
"""Reason why a row of generalised few-shot segmentation has no rank."""

T = TypeVar("T")

Method = dict[int, Result]
"""Results of a method in one setting, by fold."""


def is_replay(protocol: str) -> bool:
    """Return True if a protocol is registered and reads the list files of a paper's authors."""
    try:
        return bool(registry.registry().get(ProtocolSpec, protocol).lists)
    except FssbenchError:
        return False


def group_ranks(ordered: Sequence[T], differ: Callable[[T, T], bool]) -> list[int]:
    """Return shared ranks of methods that cannot be told apart from the best one of their group.

    Walking down from the best, each method is compared with the first one of the current group
    only, and either joins the group or starts the next one. Thus small steps cannot make one group
    of a long list; the last method of a group may differ from other members, and may not differ
    from the first method of the next group.

    Args:
        ordered: methods, best first.
        differ: function of the first method of a group and of one further down.

    Returns:
        For each method, 1 + the number of methods in better groups.
    """
    ranks: list[int] = []
    first = 0
    for index, method in enumerate(ordered):
        if index != first and differ(ordered[first], method):
            first = index
        ranks.append(first + 1)
    return ranks


def reasons_of(method: Method) -> list[str]:
    """Return the reasons why a method must not rank, whatever the folds of other methods."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for fold in sorted(method):
        reason = method[fold].record.rankable or _trained_on_novel(method[fold].record)
        if reason:
            reasons[reason].append(fold)
    changed = _changed_code([result.record for result in method.values()])
    if changed:
        reasons[f"folds of different code of {', '.join(changed)}"] += sorted(method)
    always = [REPLAY] * is_replay(any_record(method).protocol)
    always += [MIXED] * (HARMONIC in any_record(method).scores)
    return always + [
        reason if len(folds) == len(method) else f"fold {', '.join(map(str, folds))}: {reason}"
        for reason, folds in reasons.items()
    ]


def _changed_code(records: Sequence[Record]) -> list[str]:
    """Return the packages, except fssbench itself, whose code differs between folds."""
    known: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for name, code in record.code.items():
            known[name].add("" if name == "fssbench" else code.sha256)
    return sorted(name for name, hashes in known.items() if len(hashes) > 1)


def _trained_on_novel(record: Record) -> str:
    fold = record.trained_fold
    if fold in (None, record.fold):
        return ""
    return f"checkpoint trained for fold {fold}, which has these classes in training"


def any_record(method: Method) -> Record:
    """Return the record of the lowest fold."""
    return method[min(method)].record
