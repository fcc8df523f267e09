"""Results that share a table, before intervals and ranks are calculated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import attrs

from fssbench.board.ranking import Method, any_record, is_replay, reasons_of
from fssbench.results.method import method_id
from fssbench.results.result import Result

K = TypeVar("K")
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Draft:
    """A table without its intervals and ranks.

    Attributes:
        qualifier: as of `Table`.
        methods: results by fold of each row.
        notes: reasons why each row has no rank, except missing folds.
        averaged: as of `Table`.
    """

    qualifier: str
    methods: Sequence[Method]
    notes: Sequence[Sequence[str]]
    averaged: Sequence[int]

    @property
    def complete(self) -> list[list[Result]]:
        """Results of the averaged folds of each row; none for a row that lacks one."""
        return [
            [method[fold] for fold in self.averaged] if method.keys() >= {*self.averaged} else []
            for method in self.methods
        ]

    @property
    def ranked(self) -> int:
        """Number of rows that will have a rank."""
        return sum(
            bool(folds and not notes)
            for folds, notes in zip(self.complete, self.notes, strict=True)
        )


def make_drafts(results: Sequence[Result]) -> list[Draft]:
    """Return tables by protocol, shots and seed; in each setting, the most ranked rows first.

    Replays of published protocols are last.
    """
    settings = grouped(((r.record.protocol, r.record.shots, r.record.seed), r) for r in results)
    drafts: list[Draft] = []
    for _, members in sorted(settings.items(), key=lambda item: (is_replay(item[0][0]), item[0])):
        by_data = grouped((r.record.dataset.fingerprint, r) for r in members)
        alike = []
        for fingerprint, same_data in sorted(by_data.items()):
            data = [f"annotations {fingerprint[:8]}"] if len(by_data) > 1 else []
            parts = _same_episodes(same_data)
            for number, methods in enumerate(parts, start=1):
                part = [f"episode set {number} of {len(parts)}"] if len(parts) > 1 else []
                alike.append(_draft(methods, ", ".join(data + part)))
        drafts += sorted(alike, key=lambda t: (-t.ranked, -len(t.methods), t.qualifier))
    return drafts


def _draft(methods: Sequence[Method], qualifier: str) -> Draft:
    notes = [reasons_of(method) for method in methods]
    may_rank = [method for method, why in zip(methods, notes, strict=True) if not why]
    averaged = sorted({fold for method in may_rank or methods for fold in method})
    return Draft(qualifier=qualifier, methods=methods, notes=notes, averaged=averaged)


def _same_episodes(results: Sequence[Result]) -> list[list[Method]]:
    """Split methods into parts, in which all complete manifests of a fold and images are equal.

    Methods of many folds are first, so that those of few folds join them. Records of older versions
    do not name the content of their images; they join the first part with their manifests.
    """
    by_method = grouped((method_id(r.record), r) for r in results)
    methods = [{r.record.fold: r for r in members} for _, members in sorted(by_method.items())]
    parts: list[tuple[dict[int, tuple[str, str]], list[Method]]] = []
    for method in sorted(methods, key=_many_folds_first):
        digests = digests_of(method)
        for known, members in parts:
            if all(_alike(known.get(fold, own), own) for fold, own in digests.items()):
                known.update({f: own for f, own in digests.items() if f not in known or own[1]})
                members.append(method)
                break
        else:
            parts.append((digests, [method]))
    return [members for _, members in parts]


def digests_of(method: Method) -> dict[int, tuple[str, str]]:
    """Return digests of manifest and images by fold, without cut manifests, which never rank."""
    records = {fold: result.record for fold, result in method.items()}
    return {
        fold: (record.manifest.digest, record.dataset.images)
        for fold, record in records.items()
        if record.manifest.limit is None
    }


def _alike(first: tuple[str, str], second: tuple[str, str]) -> bool:
    return first[0] == second[0] and (first[1] == second[1] or not first[1] or not second[1])


def _many_folds_first(method: Method) -> tuple[Any, ...]:
    record = any_record(method)
    names = record.matcher, record.backbone, method_id(record)
    images = [images for _, images in digests_of(method).values()]
    return not images, -len(method), sorted(method), not all(images), names


def grouped(pairs: Iterable[tuple[K, T]]) -> dict[K, list[T]]:
    """Return the values of each key."""
    groups: dict[K, list[T]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups
