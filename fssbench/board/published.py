"""Numbers as papers print them: facts with their source, never ranked against measured rows."""

from __future__ import annotations

import csv
import functools
import importlib.resources

import attrs


@attrs.frozen(kw_only=True)
class Source:
    """Where a number is printed: the paper's short name, its tables, and its full title."""

    paper: str
    table: str
    title: str


@attrs.frozen(kw_only=True)
class PublishedRow:
    """One line of a paper's table; every number is text, as printed, "" where none is.

    Attributes:
        dataset, shots: the setting.
        method, backbone: as printed.
        venue_year: of the method, where the table prints it.
        folds: class mIoU of folds 0 to 3, in percent.
        mean: the printed mean, in percent.
        fb_iou: in percent.
        metric: ``miou``, or what `mean` is instead.
        sources: the papers that print exactly these numbers.
        note: what a reader must know.
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


def published_rows(dataset: str) -> dict[int, list[PublishedRow]]:
    """Published class mIoUs of a dataset by shots, the highest mean first.

    Lines that several papers print with the same numbers are one row with several sources.
    """
    merged: dict[tuple[str, ...], PublishedRow] = {}
    for key, row in _lines():
        if row.dataset == dataset and row.metric == "miou":
            merged[key] = _join(merged[key], row) if key in merged else row
    tables: dict[int, list[PublishedRow]] = {}
    for row in sorted(merged.values(), key=_descending):
        tables.setdefault(row.shots, []).append(row)
    return dict(sorted(tables.items()))


@functools.cache
def _lines() -> list[tuple[tuple[str, ...], PublishedRow]]:
    """Each line of the file with what makes two lines the same."""
    file = importlib.resources.files("fssbench.board").joinpath("published", "results.csv")
    lines: list[tuple[tuple[str, ...], PublishedRow]] = []
    for line in csv.DictReader(file.read_text("utf-8").splitlines()):
        folds = (line["fold0"], line["fold1"], line["fold2"], line["fold3"])
        row = PublishedRow(
            dataset=line["dataset"],
            shots=int(line["shots"]),
            method=line["method"],
            backbone=line["backbone"],
            venue_year=line["venue_year"],
            folds=folds,
            mean=line["miou"],
            fb_iou=line["fb_iou"],
            metric=line["metric"],
            sources=(Source(paper=line["paper"], table=line["table"], title=line["source"]),),
            note=line["note"],
        )
        where = (line["dataset"], line["shots"], line["metric"])
        what = (line["method_key"], line["backbone_key"], *folds, line["miou"], line["fb_iou"])
        lines.append(((*where, *what), row))
    return lines


def _join(row: PublishedRow, other: PublishedRow) -> PublishedRow:
    notes = dict.fromkeys(part for note in (row.note, other.note) for part in note.split("; "))
    return attrs.evolve(
        row,
        venue_year=row.venue_year or other.venue_year,
        sources=(*row.sources, *other.sources),
        note="; ".join(filter(None, notes)),
    )


def _descending(row: PublishedRow) -> tuple[float, str, str]:
    return (-float(row.mean or "-inf"), row.method.lower(), row.backbone)
