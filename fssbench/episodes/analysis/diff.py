"""What two manifests have in common, and where they differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs

from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest

HEADER = (
    "protocol", "dataset", "split", "fold", "shots", "seed", "limit", "fingerprint", "classes",
    "dropped",
)  # fmt: skip
"""Fields of the header that are compared, in the order in which they are told."""


@attrs.frozen(kw_only=True)
class FieldPair:
    """One field of both headers.

    Attributes:
        name: one of `HEADER`.
        a, b: its values; ``classes`` and ``dropped`` as names.
    """

    name: str
    a: Any
    b: Any

    @property
    def same(self) -> bool:
        """Whether both manifests say the same."""
        return bool(self.a == self.b)


@attrs.frozen(kw_only=True)
class FirstDifference:
    """The first place at which the manifests ask different questions.

    Attributes:
        index: the place.
        a, b: what is asked there; None where a manifest is at its end.
    """

    index: int
    a: Episode | None
    b: Episode | None


@attrs.frozen(kw_only=True)
class ShareDifference:
    """A class that is asked for more often in one manifest, relative to its length.

    Attributes:
        name: the class.
        a, b: episodes that ask for it.
        share_a, share_b: the same in percent of the manifest's episodes.
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
        digest_a, digest_b: their digests.
        fields: all fields of the header.
        episodes_a, episodes_b: their lengths.
        common: episodes (class, query and supports) that both ask, wherever they stand; one that
            is asked n times in the one and m times in the other counts min(n, m) times.
        in_place: episodes that both ask at the same place.
        common_queries: (query, class) pairs that both ask about, each counted once.
        first: the first place at which they differ, or None.
        shares: classes whose shares differ, the largest difference first.
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
        """Same digest and same annotations: rows on the one are rows on the other."""
        return self.digest_a == self.digest_b and all(field.same for field in self.fields)

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        first = self.first and {
            "index": self.first.index,
            "a": self.first.a and _question(self.first.a),
            "b": self.first.b and _question(self.first.b),
        }
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
    """Compare two manifests, of whatever protocols.

    Episodes are equal when class, query and supports (with the classes that they show) are; class
    ids of different datasets are told apart by the class names.
    """
    asked_a, asked_b = _asked(a), _asked(b)
    both = list(zip(asked_a, asked_b, strict=False))
    first = next((i for i, (one, other) in enumerate(both) if one != other), len(both))
    differ = first < max(len(asked_a), len(asked_b))
    return ManifestDiff(
        digest_a=a.digest,
        digest_b=b.digest,
        fields=tuple(FieldPair(name=n, a=_told(a, n), b=_told(b, n)) for n in HEADER),
        episodes_a=len(asked_a),
        episodes_b=len(asked_b),
        common=(Counter(asked_a) & Counter(asked_b)).total(),
        in_place=sum(one == other for one, other in both),
        common_queries=len({q[:2] for q in asked_a} & {q[:2] for q in asked_b}),
        first=FirstDifference(index=first, a=_at(a, first), b=_at(b, first)) if differ else None,
        shares=_shares(a, b),
    )


_Asked = tuple[str, str, tuple[tuple[str, str], ...]]


def _asked(manifest: Manifest) -> list[_Asked]:
    """(class, query, supports with the class they show) of each episode."""
    names = dict(manifest.classes)

    def name(class_id: int) -> str:
        # A control's supports may show a class that the manifest does not list.
        return names.get(class_id, f"#{class_id}")

    return [
        (
            name(episode.class_id),
            episode.query,
            tuple((image, name(shown)) for image, shown in episode.supports()),
        )
        for episode in manifest.episodes
    ]


def _told(manifest: Manifest, field: str) -> Any:
    value = getattr(manifest, field)
    return [name for _, name in value] if field in ("classes", "dropped") else value


def _at(manifest: Manifest, index: int) -> Episode | None:
    return manifest.episodes[index] if index < len(manifest.episodes) else None


def _question(episode: Episode) -> dict[str, Any]:
    return {
        "class_id": episode.class_id,
        "query": episode.query,
        "support": list(episode.support),
        "support_classes": list(episode.support_classes),
    }


def _shares(a: Manifest, b: Manifest) -> tuple[ShareDifference, ...]:
    counts_a, counts_b = (
        Counter(m.class_name(episode.class_id) for episode in m.episodes) for m in (a, b)
    )
    total_a, total_b = max(counts_a.total(), 1), max(counts_b.total(), 1)
    names = dict.fromkeys(name for m in (a, b) for _, name in m.classes)
    found = [
        ShareDifference(
            name=name,
            a=counts_a[name],
            b=counts_b[name],
            share_a=100 * counts_a[name] / total_a,
            share_b=100 * counts_b[name] / total_b,
        )
        for name in names
        if counts_a[name] * total_b != counts_b[name] * total_a
    ]
    return tuple(sorted(found, key=lambda share: -abs(share.share_a - share.share_b)))
