"""The verdict on a result of which some was done again: which rows differ, and how much may."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.metrics.iou import IoU
from fssbench.results.record import Record
from fssbench.results.rows import KEYS

ELSEWHERE = 1e-4
"""Share of an image's pixels by which counts may differ on other hardware, software or precision:
rounding moves logits that lie near 0 to its other side."""
ROUNDING = 1e-9
"""Relative difference of two equal numbers of which one was written as text and read."""

SAME = ("device", "hardware", "threads", "precision", "batch_size", "torch")
"""Conditions under which rows must be equal to the pixel when all of them are."""
TOLD = ("features", "fssbench", "commit", "python", "system")
"""Conditions that are told beside them."""


@attrs.frozen(kw_only=True)
class Difference:
    """An episode whose row is not what it is now.

    Attributes:
        index, class_id, query: the episode.
        class_name: name of the class.
        columns: (stored, now) of each column that differs.
        pixels: the largest difference of a count.
        allowed: the largest that the tolerance allows.
        within: whether all columns are as they should be, within the tolerance.
    """

    index: int
    class_id: int
    class_name: str
    query: str
    columns: Mapping[str, tuple[float, float]]
    pixels: int
    allowed: int
    within: bool


@attrs.frozen(kw_only=True)
class Reproduction:
    """What came out.

    Attributes:
        folder: where the record lies.
        record: the record.
        seed: of the sample.
        sample: indices of the episodes that were done again, ascending.
        then, now: conditions, `SAME` and `TOLD`, of the record and of this verification.
        tolerance: share of an image's pixels by which counts may differ.
        problems: what is wrong with the record without any model, one line each.
        differences: episodes of the sample whose rows differ.
    """

    folder: Path
    record: Record
    seed: int
    sample: tuple[int, ...]
    then: Mapping[str, Any]
    now: Mapping[str, Any]
    tolerance: float
    problems: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def stands(self) -> bool:
        """Nothing is wrong, and no row differs by more than the tolerance."""
        return not self.problems and all(each.within for each in self.differences)

    @property
    def changed(self) -> tuple[str, ...]:
        """Those of `SAME` that are not the same."""
        return tuple(name for name in SAME if self.then.get(name) != self.now.get(name))

    @property
    def surely_found(self) -> int:
        """So many changed rows would be found out, one of them at least, with 95 % certainty."""
        total, sample = self.record.manifest.episodes, len(self.sample)
        return next(
            rows
            for rows in range(1, total + 1)
            if 20 * math.comb(total - rows, sample) <= math.comb(total, sample)
        )

    def to_fields(self) -> dict[str, Any]:
        """Everything as JSON has it."""
        return {
            "record": str(self.folder),
            "stands": self.stands,
            "episodes": self.record.manifest.episodes,
            "seed": self.seed,
            "sample": list(self.sample),
            "then": dict(self.then),
            "now": dict(self.now),
            "changed": list(self.changed),
            "tolerance": self.tolerance,
            "problems": list(self.problems),
            "differences": [attrs.asdict(each) for each in self.differences],
        }


def compare_rows(
    stored: pandas.DataFrame, now: pandas.DataFrame, manifest: Manifest, tolerance: float
) -> list[Difference]:
    """The episodes whose rows differ.

    Pixel counts may differ by the tolerance's share of the image. Columns of other metrics must be
    equal where the counts are, because the mask is then the same one for all that is known; where
    counts differ, as the tolerance allows, other columns are not judged.

    Args:
        stored: all rows of the record.
        now: the sampled rows, measured again.
        manifest: the episodes.
        tolerance: share of an image's pixels.
    """
    differences = []
    for new in now.to_dict("records"):
        index = int(new["index"])
        old = stored.iloc[index].to_dict()
        columns = {
            name: (old[name], new[name])
            for name in now.columns.drop(list(KEYS))
            if not _equal(old[name], new[name])
        }
        if not columns:
            continue
        pixels = max(abs(int(old[name]) - int(new[name])) for name in IoU.columns)
        allowed = math.floor(tolerance * (new["union_bg"] + new["intersection_fg"]))
        class_id = int(new["class_id"])
        differences.append(
            Difference(
                index=index,
                class_id=class_id,
                class_name=manifest.class_name(class_id),
                query=str(new["query"]),
                columns=columns,
                pixels=pixels,
                allowed=allowed,
                within=0 < pixels <= allowed,
            )
        )
    return differences


def _equal(old: float, new: float) -> bool:
    if math.isnan(old) or math.isnan(new):
        return math.isnan(old) and math.isnan(new)
    return math.isclose(old, new, rel_tol=ROUNDING, abs_tol=ROUNDING)


def conditions_of(record: Record) -> dict[str, Any]:
    """The `conditions` that a record says it was made under; None for what it does not say."""
    packages = record.environment.get("packages")
    torch = packages.get("torch") if isinstance(packages, Mapping) else None
    return conditions({**record.environment, "packages": {"torch": torch}})


def conditions(said: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """`SAME` and `TOLD` out of the environment block of a record."""
    flat = {**said, "torch": said["packages"]["torch"], **more}
    return {name: flat.get(name) for name in (*SAME, *TOLD)}
