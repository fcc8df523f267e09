"""Chunks of a manifest: the unit of measuring, of the journal, of resuming and of sharding."""

from __future__ import annotations

from collections.abc import Sequence

from fssbench.episodes.episode import Episode

CHUNK = 20
"""Number of episodes in a chunk."""


def visiting_order(episodes: Sequence[Episode]) -> list[Episode]:
    """Return the episodes in the order in which they are measured.

    They are sorted by class, since supports recur only within their class, and then by query, so
    that the episodes of a query follow each other. The order depends on the episodes alone: not on
    memory, processes or the episodes measured before.
    """
    return sorted(episodes, key=lambda e: (e.class_id, e.query, e.support, e.index))


def chunks_of(episodes: Sequence[Episode]) -> dict[int, Sequence[Episode]]:
    """Return the chunks of a manifest by number, in visiting order."""
    ordered = visiting_order(episodes)
    starts = range(0, len(ordered), CHUNK)
    return {number: ordered[start : start + CHUNK] for number, start in enumerate(starts)}
