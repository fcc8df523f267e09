"""One question of a benchmark: which query, of which class, told by which supports."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Episode:
    """Segment `class_id` in `query`, given the class's mask in each image of `support`.

    Attributes:
        index: position in the manifest, from 0.
        class_id: the class that is asked for.
        query: image id.
        support: image ids, K of them.
        support_classes: class ids whose masks the supports carry. Empty in every ordinary protocol:
            the supports show `class_id`. Control protocols show another class on purpose, to find
            out whether a method heeds its support at all.
    """

    index: int
    class_id: int
    query: str
    support: tuple[str, ...]
    support_classes: tuple[int, ...] = ()

    def supports(self) -> list[tuple[str, int]]:
        """(image id, class id of the mask) of each support."""
        shown = self.support_classes or (self.class_id,) * len(self.support)
        return list(zip(self.support, shown, strict=True))
