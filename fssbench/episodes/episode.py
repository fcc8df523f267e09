"""An episode: a query, a class, and the supports that show the class."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Episode:
    """The task to segment `class_id` in `query`, given its mask in each image of `support`.

    Attributes:
        index: position in the manifest, from 0.
        class_id: id of the novel class to segment.
        query: image id of the query.
        support: image ids of the K supports.
        support_classes: class ids of the supports' masks; empty if all are masks of `class_id`.
            Control protocols show another class, to test the use of the support by a method.
    """

    index: int
    class_id: int
    query: str
    support: tuple[str, ...]
    support_classes: tuple[int, ...] = ()

    def supports(self) -> list[tuple[str, int]]:
        """Return image id and class id of the mask of each support."""
        shown = self.support_classes or (self.class_id,) * len(self.support)
        return list(zip(self.support, shown, strict=True))
