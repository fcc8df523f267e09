"""An episode: a query, one class or several, and the supports that show each class."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Target:
    """One way of an episode: a class to segment, and the supports that show it.

    Attributes:
        class_id: id of the class to segment.
        support: image ids of the K supports; empty for a base class, which a method knows already.
        support_classes: class ids of the supports' masks, see `Episode`.
    """

    class_id: int
    support: tuple[str, ...]
    support_classes: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Episode:
    """The task to segment `class_id` in `query`, given its mask in each image of `support`.

    An episode of N ways has N classes. Its `class_id`, `support` and `support_classes` are those of
    the first way; `ways` gives an episode for each of them.

    Attributes:
        index: position in the manifest, from 0.
        class_id: id of the novel class to segment.
        query: image id of the query.
        support: image ids of the K supports.
        support_classes: class ids of the supports' masks; empty if all are masks of `class_id`.
            Control protocols show another class, to test the use of the support by a method.
        further: second to last way of an episode of several ways.
    """

    index: int
    class_id: int
    query: str
    support: tuple[str, ...]
    support_classes: tuple[int, ...] = ()
    further: tuple[Target, ...] = attrs.field(default=(), repr=False)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The N ways, in order; predictions of way n have label n, from 1."""
        first = Target(
            class_id=self.class_id, support=self.support, support_classes=self.support_classes
        )
        return (first, *self.further)

    def ways(self) -> list[Episode]:
        """Return the episode of each way by itself, with the same index and query."""
        if not self.further:
            return [self]
        return [
            Episode(index=self.index, query=self.query, **attrs.asdict(target, recurse=False))
            for target in self.targets
        ]

    def supports(self) -> list[tuple[str, int]]:
        """Return image id and class id of the mask of each support of the first way."""
        shown = self.support_classes or (self.class_id,) * len(self.support)
        return list(zip(self.support, shown, strict=True))
