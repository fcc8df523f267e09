"""Published numbers with their sources, which are never ranked against measured rows."""

from __future__ import annotations

import csv
import functools
import importlib.resources
from collections.abc import Iterable

import attrs

_SAME = ("dataset", "method", "backbone", "venue_year", "fb_iou", "metric", "note")
"""Attributes of a row that are columns of the file."""


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
        mean: printed mean, in percent.
        fb_iou: printed FB-IoU, in percent.
        metric: ``miou``, or the metric of `mean`.
        sources: papers that print exactly these numbers.
        note: remark on the numbers.
    """

    dataset: str
    shots: int
    method: str
    backbone: str
    venue_year: str
    folds: tuple[str, str, str, str]
    mean: str
    fb_iou: str
    metric: str
    sources: tuple[Source, ...]
    note: str

    @property
    def label(self) -> str:
        """Method, with venue and year if known."""
        return self.method + (f" ({self.venue_year})" if self.venue_year else "")

    @property
    def printed_in(self) -> str:
        """Papers and tables of the numbers."""
        return "; ".join(f"{source.paper}, {source.table}" for source in self.sources)


def published_rows(dataset: str) -> dict[int, list[PublishedRow]]:
    """Return published class mIoUs of a dataset by shots, the highest mean first.

    Equal lines of several papers are one row with several sources.
    """
    merged: dict[tuple[str, ...], PublishedRow] = {}
    for key, row in _lines():
        if row.dataset == dataset and row.metric == "miou":
            merged[key] = _join(merged[key], row) if key in merged else row
    tables: dict[int, list[PublishedRow]] = {}
    for row in sorted(
        merged.values(), key=lambda r: (-float(r.mean or "-inf"), r.method.lower(), r.backbone)
    ):
        tables.setdefault(row.shots, []).append(row)
    return dict(sorted(tables.items()))


def paper_titles(rows: Iterable[PublishedRow]) -> list[tuple[str, str]]:
    """Return the short names and full titles of the sources of rows, sorted."""
    titles = {source.paper: source.title for row in rows for source in row.sources}
    return [(name, titles[name].removeprefix(f"{name}: ")) for name in sorted(titles)]


@functools.cache
def _lines() -> list[tuple[tuple[str, ...], PublishedRow]]:
    """Return the lines of the file, each with a key that is equal for equal lines."""
    file = importlib.resources.files("fssbench.board").joinpath("published", "results.csv")
    lines: list[tuple[tuple[str, ...], PublishedRow]] = []
    for line in csv.DictReader(file.read_text("utf-8").splitlines()):
        row = PublishedRow(
            shots=int(line["shots"]),
            folds=(line["fold0"], line["fold1"], line["fold2"], line["fold3"]),
            mean=line["miou"],
            sources=(Source(paper=line["paper"], table=line["table"], title=line["source"]),),
            **{name: line[name] for name in _SAME},
        )
        names = ("dataset", "shots", "metric", "method_key", "backbone_key", "miou", "fb_iou")
        lines.append(((*(line[name] for name in names), *row.folds), row))
    return lines


def _join(row: PublishedRow, other: PublishedRow) -> PublishedRow:
    notes = dict.fromkeys(part for note in (row.note, other.note) for part in note.split("; "))
    return attrs.evolve(
        row,
        venue_year=row.venue_year or other.venue_year,
        sources=(*row.sources, *other.sources),
        note="; ".join(filter(None, notes)),
    )
