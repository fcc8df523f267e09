"""Ranks that methods share when their paired difference may be zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def group_ranks(ordered: Sequence[T], differ: Callable[[T, T], bool]) -> list[int]:
    """Ranks by groups: walking down from the best, who does not differ from the first joins it.

    Everyone is compared with the first of the current group alone; who differs from that one
    starts the next group. So a group never drifts away from its best, and the last of a group may
    be told from some of its other members, or not be told from the first of the next one.

    Args:
        ordered: best first.
        differ: whether the first of a group (first argument) differs from one further down.

    Returns:
        For each, 1 + the number of those in better groups.
    """
    ranks: list[int] = []
    first = 0
    for place in range(len(ordered)):
        if place != first and differ(ordered[first], ordered[place]):
            first = place
        ranks.append(first + 1)
    return ranks
