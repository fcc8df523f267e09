"""Published numbers with their sources, which are never ranked against measured rows."""

from __future__ import annotations

import functools
import importlib.resources
from collections.abc import Iterable, Mapping, Sequence

import attrs
import pandas

_FOLDS = [f"fold{fold}" for fold in range(4)]
_EQUAL = ["dataset", "shots", "method_key", "backbone_key", *_FOLDS, "miou", "metric", "fb_iou"]
"""Columns that are equal in equal lines."""


@attrs.frozen(kw_only=True)
class Source:
    """Source of a number: short name of the paper, its tables, and its full title."""

    paper: str
    table: str
    title: str


@attrs.frozen(kw_only=True)
class PublishedRow:
    """A line of a paper's table; each number is the printed text, "" for an empty cell.

    Attributes:
        dataset, shots: the setting.
        method, backbone: printed names.
        venue_year: venue and year of the method, if the table prints them.
        folds: class mIoU of folds 0 to 3, in percent.
        mean: printed mean of `metric`, in percent.
        metric: class ``mIoU``, or ``J&F`` on DAVIS.
        fb_iou: printed FB-IoU, in percent.
        sources: papers that print exactly these numbers.
        note: remark on the numbers.
    """

    dataset: str
    shots: int
    method: str
    backbone: str
    venue_year: str
    folds: tuple[str, ...]
    mean: str
    metric: str
    fb_iou: str
    sources: tuple[Source, ...]
    note: str

    @property
    def label(self) -> str:
        """Method, with venue and year if known."""
        return self.method + (f" ({self.venue_year})" if self.venue_year else "")


def published_rows(dataset: str) -> dict[int, list[PublishedRow]]:
    """Return published numbers of a dataset by shots, the highest mean first.

    Equal lines of several papers are one row with several sources.
    """
    lines = _lines()
    lines = lines[lines["dataset"] == dataset]
    rows = [_row(group.to_dict("records")) for _, group in lines.groupby(_EQUAL, sort=False)]
    rows.sort(key=lambda row: (-float(row.mean or "-inf"), row.method.lower(), row.backbone))
    shots = sorted({row.shots for row in rows})
    return {k: [row for row in rows if row.shots == k] for k in shots}


def paper_titles(rows: Iterable[PublishedRow]) -> list[tuple[str, str]]:
    """Return the short names and full titles of the sources of rows, sorted."""
    titles = {source.paper: source.title for row in rows for source in row.sources}
    return [(name, titles[name].removeprefix(f"{name}: ")) for name in sorted(titles)]


@functools.cache
def _lines() -> pandas.DataFrame:
    file = importlib.resources.files("fssbench.board").joinpath("published", "results.csv")
    with file.open(encoding="utf-8") as text:
        lines: pandas.DataFrame = pandas.read_csv(text, dtype=str, keep_default_na=False)
    return lines


def _row(lines: Sequence[Mapping[str, str]]) -> PublishedRow:
    """Return the row of equal lines."""
    first = lines[0]
    notes = dict.fromkeys(part for line in lines for part in line["note"].split("; ") if part)
    return PublishedRow(
        shots=int(first["shots"]),
        venue_year=next((line["venue_year"] for line in lines if line["venue_year"]), ""),
        folds=tuple(first[name] for name in _FOLDS),
        mean=first["miou"],
        metric={"miou": "mIoU"}.get(first["metric"], first["metric"]),
        sources=tuple(
            Source(paper=line["paper"], table=line["table"], title=line["source"]) for line in lines
        ),
        note="; ".join(notes),
        **{name: first[name] for name in ("dataset", "method", "backbone", "fb_iou")},
    )
