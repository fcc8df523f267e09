"""Chunks of a manifest: the unit of work, of the journal, of resuming and of sharding."""

from __future__ import annotations

from collections.abc import Sequence

from fssbench.episodes.episode import Episode

CHUNK = 20
"""Episodes of a chunk."""


def visiting_order(episodes: Sequence[Episode]) -> list[Episode]:
    """Episodes in the order in which they are measured.

    Classes one after the other, for supports come back in their own class only; within a class the
    queries, so that each is looked at in all its episodes before the next one. It depends on the
    episodes alone: not on memory, processes or what is measured already.
    """
    return sorted(episodes, key=lambda e: (e.class_id, e.query, e.support, e.index))


def chunks_of(episodes: Sequence[Episode]) -> dict[int, Sequence[Episode]]:
    """A manifest's episodes cut into chunks, by number, in the order of visiting."""
    ordered = visiting_order(episodes)
    return {
        start // CHUNK: ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK)
    }
