"""The metric: how wrong the size of predictions is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas
import torch
from torch import Tensor

from fssbench import FssbenchError


class SizeError:
    """Mean of (predicted - true pixels) / labelled pixels, in percent; 0 is best."""

    columns = ("example_surplus", "example_labelled")

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """int64 (B,): predicted minus true foreground, and labelled pixels."""
        labelled = target != 255
        marked = torch.count_nonzero(prediction & labelled, dim=(1, 2))
        true = torch.count_nonzero(target == 1, dim=(1, 2))
        return {
            "example_surplus": marked - true,
            "example_labelled": torch.count_nonzero(labelled, dim=(1, 2)),
        }

    def summarise(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> dict[str, float]:
        """``example_size``, in percent of the image."""
        missing = sorted(set(classes or ()) - set(rows["class_id"]))
        if missing or rows.empty:
            raise FssbenchError(f"the table has no row of class {missing or 'any'}")
        share = rows["example_surplus"] / rows["example_labelled"].clip(lower=1)
        return {"example_size": 100 * float(share.mean())}
