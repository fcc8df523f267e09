"""Outcome of a verification: rows that differ, and the tolerance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.metrics.iou import IoU
from fssbench.results.record import Record
from fssbench.results.rows import KEYS, WAY, confusion_columns, rows_of

ELSEWHERE = 1e-4
"""Share of an image's pixels by which counts may differ on other hardware, software or precision:
rounding changes the sign of logits near 0."""
ROUNDING = 1e-9
"""Relative tolerance between a number and the same number read back from text."""

SAME = ("device", "hardware", "threads", "precision", "batch_size", "torch")
"""Conditions that, if all are equal, require equal pixel counts."""
REPORTED = ("features", "fssbench", "commit", "python", "system")
"""Further conditions that are reported."""


@attrs.frozen(kw_only=True)
class Difference:
    """An episode whose stored row differs from the new one.

    Attributes:
        index, class_id, query: keys of the episode.
        class_name: name of the class.
        columns: (stored, new) values of each column that differs.
        pixels: largest difference of a pixel count.
        allowed: largest difference that the tolerance allows.
        within: True if the difference is within the tolerance.
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
    """The outcome of a verification.

    Attributes:
        folder: folder of the record.
        record: verified record.
        seed: seed of the sample.
        sample: indices of the episodes that were evaluated again, ascending.
        then, now: conditions, `SAME` and `REPORTED`, of the record and of this verification.
        tolerance: share of an image's pixels by which counts may differ.
        problems: errors of the record that were found without a model, one line each.
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
        """Whether there are no problems and no row differs by more than the tolerance."""
        return not self.problems and all(each.within for each in self.differences)

    @property
    def changed(self) -> tuple[str, ...]:
        """Conditions of `SAME` that differ."""
        return tuple(name for name in SAME if self.then.get(name) != self.now.get(name))

    @property
    def detectable_rows(self) -> int:
        """Number of altered rows that the sample detects with a probability of 95 %."""
        total, sample = self.record.manifest.episodes, len(self.sample)
        return next(
            rows
            for rows in range(1, total + 1)
            if 20 * math.comb(total - rows, sample) <= math.comb(total, sample)
        )

    def to_fields(self) -> dict[str, Any]:
        """Return JSON values."""
        fields = attrs.asdict(self, filter=lambda field, _: field.name not in ("folder", "record"))
        return {
            "record": str(self.folder),
            "stands": self.stands,
            "episodes": self.record.manifest.episodes,
            "changed": list(self.changed),
            **fields,
        }


def compare_rows(
    stored: pandas.DataFrame, now: pandas.DataFrame, manifest: Manifest, tolerance: float
) -> list[Difference]:
    """Return the episodes whose rows differ.

    Pixel counts may differ by the tolerance's share of the image. If the counts are equal, the
    masks are assumed to be equal, and so must be the columns of other metrics; if the counts differ
    within the tolerance, other columns are not compared.

    Args:
        stored: all rows of the record.
        now: rows of the sample, measured again.
        manifest: manifest of the record.
        tolerance: share of an image's pixels.
    """
    differences = []
    counts = (*IoU.columns, *confusion_columns(manifest.ways))
    for new in now.to_dict("records"):
        way = rows_of(stored, int(new["index"]), manifest.ways)
        old = way.iloc[int(new.get(WAY, 1)) - 1].to_dict()
        columns = {
            name: (old[name], new[name])
            for name in now.columns.drop(list(KEYS))
            if not numpy.isclose(old[name], new[name], ROUNDING, ROUNDING, equal_nan=True)
        }
        if not columns:
            continue
        pixels = max(abs(int(old[name]) - int(new[name])) for name in counts)
        allowed = math.floor(tolerance * (new["union_bg"] + new["intersection_fg"]))
        differences.append(
            Difference(
                index=int(new["index"]),
                class_id=int(new["class_id"]),
                class_name=manifest.class_name(int(new["class_id"])),
                query=str(new["query"]),
                columns=columns,
                pixels=pixels,
                allowed=allowed,
                within=0 < pixels <= allowed,
            )
        )
    return differences


def conditions(environment: Mapping[str, Any]) -> dict[str, Any]:
    """Return `SAME` and `REPORTED` conditions of a record's environment; None for missing ones."""
    packages = environment.get("packages")
    torch = packages.get("torch") if isinstance(packages, Mapping) else None
    return {name: {**environment, "torch": torch}.get(name) for name in (*SAME, *REPORTED)}
