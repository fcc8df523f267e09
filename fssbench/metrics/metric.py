"""The interface of metrics: columns for each episode, scores from a table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import pandas
import torch
from numpy.typing import NDArray
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

    def measure(self, prediction: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        """Compute the columns of a batch of episodes.

        Args:
            prediction: bool (B, H, W), True is foreground.
            target: uint8 (B, H, W): 0 background, 1 foreground, 255 ignored.

        Returns:
            For each of `columns` an int64 or float64 tensor (B,), on the prediction's device.
        """

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


def measure_each(
    measure: Callable[[NDArray[Any], NDArray[Any]], Sequence[float]], columns: Sequence[str],
    prediction: Tensor, target: Tensor,
) -> dict[str, Tensor]:  # fmt: skip
    """Apply a function of NumPy arrays to each episode of a batch.

    Args:
        measure: function of the prediction, bool (H, W), and the target, uint8 (H, W), that returns
            the value of each column.
        columns: names of the columns.
        prediction: predictions, bool (B, H, W).
        target: targets, uint8 (B, H, W).

    Returns:
        float64 (B,) for each of `columns`, on the prediction's device.
    """
    planes = zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True)
    values = torch.tensor([measure(*pair) for pair in planes], dtype=torch.float64)
    table = values.view(-1, len(columns)).to(prediction.device)
    return dict(zip(columns, table.unbind(1), strict=True))


def check_classes(found: Iterable[int], wanted: Sequence[int] | None) -> None:
    """Check that all classes of a mean have rows.

    Args:
        found: class ids that have rows.
        wanted: class ids that must have rows; None for no check.

    Raises:
        FssbenchError: a wanted class has no row, or there is no row at all.
    """
    found = set(found)
    missing = sorted(set(wanted or ()) - found)
    if missing or not found:
        named = f"of class {', '.join(map(str, missing))}" if missing else "at all"
        raise FssbenchError(f"the table has no row {named}; a mean over the rest would mislead")
