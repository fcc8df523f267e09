"""The interface of metrics: columns for each episode, scores from a table of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import pandas
from torch import Tensor

from fssbench.errors import FssbenchError


@runtime_checkable
class Metric(Protocol):
    """Columns of each episode, and scores of a table of episodes.

    A score is a pure function of the table of rows, so resuming, sharding, intervals, comparison
    and verification are operations on rows.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `measure` returns and `summarise` reads."""
        ...

    def measure(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Compute the columns of a batch of episodes.

        Args:
            prediction: bool (B, H, W), True is foreground.
            target: uint8 (B, H, W): 0 background, 1 foreground, 255 ignored.

        Returns:
            For each of `columns` an int64 or float64 tensor (B,), on the prediction's device.
        """
        ...

    def summarise(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> dict[str, float]:
        """Compute the scores of a table of rows.

        Args:
            rows: table with the columns ``index, class_id, query`` and this metric's.
            classes: class ids that must have rows; None for no check.

        Returns:
            Scores by name, in percent where they are ratios.

        Raises:
            FssbenchError: a class of `classes` has no row (it is named), or there is no row at all.
        """
        ...


def check_classes(found: Iterable[int], wanted: Sequence[int] | None) -> None:
    """Check that all classes of a mean have rows.

    Args:
        found: class ids that have rows.
        wanted: class ids that must have rows; None for no check.

    Raises:
        FssbenchError: a wanted class has no row, or there is no row at all.
    """
    there = set(found)
    missing = sorted(set(wanted or ()) - there)
    if missing or not there:
        named = f"of class {', '.join(map(str, missing))}" if missing else "at all"
        raise FssbenchError(f"the table has no row {named}; a mean over the rest would mislead")
