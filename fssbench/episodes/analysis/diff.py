"""Comparison of two manifests."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import Any

import attrs

from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest

HEADER = (
    "protocol", "dataset", "split", "fold", "shots", "seed", "limit", "fingerprint", "classes",
    "dropped",
)  # fmt: skip
"""Fields of the header that are compared, in order of the report."""


@attrs.frozen(kw_only=True)
class FieldPair:
    """One field of both headers.

    Attributes:
        name: name of the field, one of `HEADER`.
        a, b: values in the manifests; names for ``classes`` and ``dropped``.
    """

    name: str
    a: Any
    b: Any

    @property
    def same(self) -> bool:
        """True if both values are equal."""
        return bool(self.a == self.b)


@attrs.frozen
class FirstDifference:
    """The first pair of different episodes.

    Attributes:
        index: index of the episodes.
        a, b: episodes of the manifests; None past the end of a manifest.
    """

    index: int
    a: Episode | None
    b: Episode | None


@attrs.frozen
class ShareDifference:
    """A class with different shares of the episodes.

    Attributes:
        name: name of the class.
        a, b: numbers of its episodes.
        share_a, share_b: percentages of its episodes.
    """

    name: str
    a: int
    b: int
    share_a: float
    share_b: float


@attrs.frozen(kw_only=True)
class ManifestDiff:
    """The comparison of two manifests.

    Attributes:
        digest_a, digest_b: digests.
        fields: fields of the headers.
        episodes_a, episodes_b: numbers of episodes.
        common: number of common episodes (class, query and supports) at any index; one that occurs
            n times in `a` and m times in `b` counts min(n, m) times.
        in_place: number of common episodes at the same index.
        common_queries: number of different (query, class) pairs in common.
        first: first difference of the episodes, or None.
        shares: classes whose shares differ, by falling difference.
    """

    digest_a: str
    digest_b: str
    fields: tuple[FieldPair, ...]
    episodes_a: int
    episodes_b: int
    common: int
    in_place: int
    common_queries: int
    first: FirstDifference | None
    shares: tuple[ShareDifference, ...]

    @property
    def equal(self) -> bool:
        """True if digests and headers are equal, so that rows of one are rows of the other."""
        return self.digest_a == self.digest_b and all(field.same for field in self.fields)

    def to_fields(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        first = self.first and {
            "index": self.first.index, "a": _json(self.first.a), "b": _json(self.first.b),
        }  # fmt: skip
        return {
            "equal": self.equal,
            "digest": {"a": self.digest_a, "b": self.digest_b},
            "header": {
                field.name: {"same": field.same, "a": field.a, "b": field.b}
                for field in self.fields
            },
            "episodes": {"a": self.episodes_a, "b": self.episodes_b},
            "common": self.common,
            "in_place": self.in_place,
            "common_queries": self.common_queries,
            "first_difference": first,
            "class_shares": [attrs.asdict(share) for share in self.shares],
        }


def diff(a: Manifest, b: Manifest) -> ManifestDiff:
    """Compare two manifests of any protocols.

    Episodes are equal if class, query and supports, with the classes of the supports' masks, are
    equal. Classes are compared by name, since datasets may use the same class ids.
    """
    asked_a, asked_b = _asked(a), _asked(b)
    same = [one == other for one, other in zip_longest(asked_a, asked_b)]
    first = None
    if not all(same):
        index = same.index(False)
        first = FirstDifference(index, *list(zip_longest(a.episodes, b.episodes))[index])
    return ManifestDiff(
        digest_a=a.digest,
        digest_b=b.digest,
        fields=tuple(FieldPair(name=n, a=_value(a, n), b=_value(b, n)) for n in HEADER),
        episodes_a=len(asked_a),
        episodes_b=len(asked_b),
        common=(Counter(asked_a) & Counter(asked_b)).total(),
        in_place=sum(same),
        common_queries=len({q[:2] for q in asked_a} & {q[:2] for q in asked_b}),
        first=first,
        shares=_shares(a, b),
    )


def _asked(manifest: Manifest) -> list[tuple[str, str, tuple[tuple[str, str], ...]]]:
    """Return (class, query, supports with the class of their masks) of each episode."""
    names = dict(manifest.classes)
    # The supports of a control may show a class that the manifest does not list.
    return [
        (
            ", ".join(names[target.class_id] for target in e.targets),
            e.query,
            tuple((s, names.get(c, f"#{c}")) for way in e.ways() for s, c in way.supports()),
        )
        for e in manifest.episodes
    ]


def _value(manifest: Manifest, field: str) -> Any:
    value = getattr(manifest, field)
    return [name for _, name in value] if field in ("classes", "dropped") else value


def _json(episode: Episode | None) -> dict[str, Any] | None:
    if episode is None:
        return None
    fields = attrs.asdict(episode, filter=lambda field, _: field.name != "index")
    return fields if episode.further else {k: v for k, v in fields.items() if k != "further"}


def _shares(a: Manifest, b: Manifest) -> tuple[ShareDifference, ...]:
    counts_a, counts_b = (Counter(m.class_name(e.class_id) for e in m.by_way()) for m in (a, b))
    total_a, total_b = max(counts_a.total(), 1), max(counts_b.total(), 1)
    names = dict.fromkeys(name for m in (a, b) for _, name in m.classes)
    found = [
        ShareDifference(name, of_a, of_b, 100 * of_a / total_a, 100 * of_b / total_b)
        for name, of_a, of_b in ((name, counts_a[name], counts_b[name]) for name in names)
        if of_a * total_b != of_b * total_a
    ]
    return tuple(sorted(found, key=lambda share: -abs(share.share_a - share.share_b)))
