"""Intersection over union, from exact integer counts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.metrics.metric import check_classes


class IoU:
    """Pixel counts of each episode, and three scores computed from them.

    * ``miou``: intersections and unions are added up per class over all episodes, divided, and
      averaged over the classes. This is what the literature reports (PANet, PFENet, HSNet, HDMNet).
    * ``fb_iou``: added up over all episodes for foreground and for background, divided, and the two
      averaged.
    * ``episode_miou``: the mean of the episodes' own foreground IoU; an episode without foreground
      in prediction and target counts as 1.
    * ``background_iou``, for tables of several ways only: added up over all episodes for the
      background of the label maps, and divided.

    * ``base_miou``, ``novel_miou``, ``harmonic_mean``, for tables with base classes only: the means
      of the class IoU over base and over novel classes, and 2 a b / (a + b) of both.

    In a table of several ways, an episode has a row for each way. Foreground is the way's class
    against the rest; background is that of the label map, the same in all rows of the episode.
    """

    columns = ("intersection_fg", "union_fg", "intersection_bg", "union_bg")

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Count pixels.

        Args:
            prediction: bool (B, H, W), True is foreground.
            target: uint8 (B, H, W) of 0, 1 and 255; pixels of 255 are ignored.

        Returns:
            int64 (B,) for each of `columns`.
        """
        valid = target != IGNORE
        truth = target == 1
        marked = prediction & valid
        planes = (valid, truth, marked, marked & truth)
        in_valid, in_truth, in_marked, in_both = (p.count_nonzero(dim=(1, 2)) for p in planes)
        return {
            "intersection_fg": in_both,
            "union_fg": in_truth + in_marked - in_both,
            "intersection_bg": in_valid - in_truth - in_marked + in_both,
            "union_bg": in_valid - in_both,
        }

    def summarise(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> dict[str, float]:
        """Return the scores in percent; see `Metric.summarise`."""
        per_class = self.per_class(rows, classes)
        totals = rows[list(self.columns)].sum()
        foreground = totals["intersection_fg"] / max(totals["union_fg"], 1)
        background = totals["intersection_bg"] / max(totals["union_bg"], 1)
        episode = (rows["intersection_fg"] / rows["union_fg"]).fillna(1.0)
        return {
            "miou": float(per_class["iou"].mean()),
            "fb_iou": 50.0 * float(foreground + background),
            "episode_miou": 100.0 * float(episode.mean()),
            **({"background_iou": 100.0 * float(background)} if "way" in rows.columns else {}),
            **(_generalised(per_class["iou"], rows) if "novel" in rows.columns else {}),
        }

    def per_class(
        self, rows: pandas.DataFrame, classes: Sequence[int] | None = None
    ) -> pandas.DataFrame:
        """Return a table by class id: ``episodes``, and ``iou`` and ``background_iou`` in percent.

        A class whose episodes have no foreground at all, neither predicted nor true, has an IoU of
        0, as in the authors' codes.

        Raises:
            FssbenchError: a class of `classes` has no row, or there is no row at all.
        """
        grouped = rows.groupby("class_id")[list(self.columns)]
        sums = grouped.sum()
        check_classes(sums.index, classes)
        table = pandas.DataFrame({"episodes": grouped.size()})
        for name, side in (("iou", "fg"), ("background_iou", "bg")):
            union = sums[f"union_{side}"].clip(lower=1)
            table[name] = 100.0 * sums[f"intersection_{side}"] / union
        return table


def _generalised(ious: pandas.Series, rows: pandas.DataFrame) -> dict[str, float]:
    novel = rows.groupby("class_id")["novel"].max() == 1
    base, few = float(ious[~novel].mean()), float(ious[novel].mean())
    mean = 2 * base * few / (base + few) if base + few else 0.0
    return {"base_miou": base, "novel_miou": few, "harmonic_mean": mean}
