"""A board's tables as HTML, complete without any script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from fssbench.board.published import PublishedRow, paper_titles
from fssbench.board.ranking import REPLAY
from fssbench.board.site.details import hardware
from fssbench.board.site.html import Html, join, tag
from fssbench.board.site.scatter import Point, scatter
from fssbench.board.tables import Board, Row, Table
from fssbench.board.text import NONE, count, milliseconds, one_line, score
from fssbench.results.method import training_facts

TO = "\N{EN DASH}"


@attrs.frozen(kw_only=True)
class Entry:
    """A row with its id on the page, and the addresses of its records by fold."""

    id: str
    row: Row
    links: Mapping[int, str]

    @property
    def parameters(self) -> int | None:
        """Number of all parameters, learnable and frozen; None if unknown.

        The maximum over the folds: base learners may have different numbers of classes.
        """
        costs = [record.cost for record in self.row.records.values()]
        found = [(cost.learnable_parameters, cost.backbone_parameters) for cost in costs]
        return max((a + b for a, b in found if a is not None and b is not None), default=None)


@attrs.frozen
class Column:
    """The head of a column.

    Attributes:
        name: heading.
        kind: class of its cells.
        first: order after a first click, with the best value on top; "" for no sorting.
    """

    name: str
    kind: str = "number"
    first: str = "descending"


_WHO = [Column("Method", "method", "ascending"), Column("Backbone", "backbone", "ascending")]


def measured(
    board: Board, table: Table, entries: Sequence[Entry], number: int, description: str
) -> Html:
    """Return a measured table with its facts and its charts.

    Args:
        board: board of the table.
        table: the table.
        entries: entries of the table's rows.
        number: number of the table on the page.
        description: summary of the protocol, or "".
    """
    record = table.record
    chips = [
        (f"{record.shots}-shot", "chip strong"),
        (f"seed {record.seed}" if record.seed else "", "chip"),
        (one_line(table.qualifier), "chip"),
        (REPLAY if table.replay else "", "chip warn"),
    ]
    setting = join([tag("span", text, class_=kind) for text, kind in chips if text], " ")
    name = f"table-{number}"
    heading = tag("h3", one_line(record.protocol), " ", setting, id=f"{name}-name")
    about = [tag("p", description, class_="about")] if description else []
    body = [heading, *about, _measured_grid(table, entries, name), _charts(entries), _facts(table)]
    return _article("measured", board, record.protocol, record.shots, *body)


def published(board: Board, shots: int, rows: Sequence[PublishedRow], number: int) -> Html:
    """Return a table of published numbers."""
    name = f"table-{number}"
    folds = any(any(row.folds) for row in rows)
    background = any(row.fb_iou for row in rows)
    mean = "Mean" if folds else rows[0].metric
    columns = [
        *_WHO,
        Column(mean),
        *(Column(f"Fold {fold}") for fold in range(4) if folds),
        *([Column("FB-IoU")] if background else []),
        Column("Printed in", "text", "ascending"),
    ]
    chip = tag("span", f"{shots}-shot", class_="chip strong")
    heading = tag("h3", "Printed in papers ", chip, id=f"{name}-name")
    caption = "As printed, sorted by the printed mean; an empty cell was not printed."
    body = [_published_row(row, folds, background) for row in rows]
    grid = _grid(name, caption, columns, body, ordered=mean)
    return _article("published", board, "", shots, heading, grid)


def papers(board: Board) -> Html:
    """Return the full titles of the cited papers."""
    titles = paper_titles(row for rows in board.published.values() for row in rows)
    items = [
        tag("li", tag("b", one_line(name)), f": {one_line(title, 300)}") for name, title in titles
    ]
    return tag("details", tag("summary", "The papers"), tag("ul", *items), class_="papers")


def _article(kind: str, board: Board, protocol: str, shots: int, *body: str) -> Html:
    return tag(
        "article", *body, class_=f"board {kind}", data_kind=kind, data_dataset=board.dataset,
        data_protocol=protocol, data_shots=shots,
    )  # fmt: skip


def _measured_grid(table: Table, entries: Sequence[Entry], name: str) -> Html:
    folds = table.folds if len(table.folds) > 1 else ()
    columns = [
        Column("Rank", "rank", "ascending"),
        *_WHO,
        Column(table.mean_name),
        *(Column(f"Fold {fold}") for fold in folds),
        *([Column("J&F")] if table.has_j_and_f else []),
        Column("FB-IoU"),
        Column("Learnable", first="ascending"),
        Column("Time, ms", first="ascending"),
        Column("Records", "links", ""),
    ]
    ranks = [entry.row.rank for entry in entries]
    body = [
        _row(entry, folds, table.has_j_and_f, tied=entry.row.rank == above is not None)
        for entry, above in zip(entries, [None, *ranks], strict=False)
    ]
    over = f"over folds {', '.join(map(str, table.averaged))}" if folds else "of one fold"
    ranked = "Rows of one rank cannot be told apart on these episodes."
    caption = (
        f"Class mIoU in percent, mean {over}, with its 95 % interval. "
        f"{ranked if table.ranked else 'No row has a rank.'}"
    )
    return _grid(name, caption, columns, body, ordered="Rank")


def _grid(
    name: str, caption: str, columns: Sequence[Column], body: Sequence[Html], *, ordered: str
) -> Html:
    heads = [_head(column, column.name == ordered) for column in columns]
    head = tag("thead", tag("tr", *heads))
    grid = tag("table", tag("caption", tag("span", caption)), head, tag("tbody", *body))
    return tag(
        "div", grid, class_="scroll", role="region", tabindex=0, aria_labelledby=f"{name}-name"
    )


def _head(column: Column, ordered: bool) -> Html:
    if not column.first:
        return tag("th", column.name, scope="col", class_=column.kind)
    arrow = tag("span", class_="arrow", aria_hidden="true")
    button = tag("button", column.name, arrow, type="button", class_="sort")
    return tag(
        "th", button, scope="col", class_=column.kind, data_first=column.first,
        aria_sort=column.first if ordered else None,
    )  # fmt: skip


def _row(entry: Entry, folds: Sequence[int], boundaries: bool, tied: bool) -> Html:
    row, records = entry.row, entry.row.records.values()
    rank = NONE if row.rank is None else str(row.rank)
    badge = tag("span", rank, class_="badge first" if row.rank == 1 else "badge")
    flags = [tag("span", one_line(note, 200), class_="flag") for note in row.notes]
    if any(training_facts(record).get("selected_on") == "novel" for record in records):
        flags.append(tag("span", "selected on novel classes", class_="flag"))
    links = [
        tag("a", str(fold), href=address, aria_label=f"Record of fold {fold}")
        for fold, address in entry.links.items()
    ]
    cells = [
        tag("td", badge, class_="rank", data_v=row.rank),
        *_who(row.method, row.backbone, flags),
        _mean(row),
        *(_number(row.folds.get(fold), score(row.folds.get(fold))) for fold in folds),
        *([_number(row.j_and_f, score(row.j_and_f))] if boundaries else []),
        _number(row.fb_iou, score(row.fb_iou)),
        _number(row.parameters, count(row.parameters)),
        _number(row.seconds, milliseconds(row.seconds)),
        tag("td", join(links, " "), class_="links"),
    ]
    return tag(
        "tr", *cells, data_row=entry.id, data_text=_words(row.method, row.backbone),
        data_ranked=row.rank is not None, class_="tied" if tied else None,
    )  # fmt: skip


def _published_row(row: PublishedRow, folds: bool, background: bool) -> Html:
    flags = [tag("span", one_line(row.note, 300), class_="remark")] if row.note else []
    printed = [row.mean, *(row.folds if folds else ()), *([row.fb_iou] if background else [])]
    papers = "; ".join(f"{source.paper}, {source.table}" for source in row.sources)
    cells = [
        *_who(row.label, row.backbone, flags),
        *(_number(_value(text), text) for text in printed),
        tag("td", one_line(papers, 300), class_="text", data_v=one_line(papers)),
    ]
    return tag("tr", *cells, data_text=_words(row.label, row.backbone))


def _words(method: str, backbone: str) -> str:
    """Return the text that the search of the page compares."""
    return f"{one_line(method)} {one_line(backbone)}".lower()


def _who(method: str, backbone: str, flags: Sequence[Html]) -> list[Html]:
    """Return the cells of method and encoder; on a phone the encoder is below the method."""
    method, backbone = one_line(method), one_line(backbone)
    name, variant = _parted(method)
    head = [tag("span", name, class_="name"), variant, tag("span", backbone, class_="below")]
    return [
        tag("th", *head, *flags, scope="row", class_="method", data_v=method),
        tag("td", *_parted(backbone), class_="backbone", data_v=backbone),
    ]


def _parted(label: str) -> tuple[str, Html]:
    """Return a name, and the brackets after it as an element for the next line."""
    name, _, variant = label.partition(" (")
    more = tag("span", variant.removesuffix(")"), class_="variant") if variant else Html("")
    return name, more


def _mean(row: Row) -> Html:
    if row.mean is None or row.interval is None:
        return tag("td", score(row.mean), class_="number mean", data_v=row.mean)
    value, (low, high) = row.mean, row.interval
    style = f"--v:{value:.2f};--low:{low:.2f};--high:{high:.2f}"
    bar = tag("span", tag("i"), class_="bar", aria_hidden="true", style=style)
    between = tag("span", f"{low:.1f}{TO}{high:.1f}", class_="interval")
    inside = tag("b", score(value)), " ", between, bar
    return tag("td", *inside, class_="number mean", data_v=f"{value:.6f}")


def _number(value: float | None, text: str) -> Html:
    return tag("td", text, class_="number", data_v=value)


def _value(printed: str) -> float | None:
    try:
        return float(printed)
    except ValueError:
        return None


def _charts(entries: Sequence[Entry]) -> Html:
    """Return charts of accuracy against parameters and time, for two methods or more."""
    shown = [entry for entry in entries if entry.row.mean is not None and entry.row.interval]
    if len(shown) < 2:
        return Html("")
    machines = sorted({one_line(hardware(entry.row)) for entry in shown} - {""})
    mixed = "Measured on different hardware, so do not compare times across it: "
    on = f"{'All on ' if len(machines) == 1 else mixed}{'; '.join(machines)}."
    charts = {
        "Accuracy against parameters, learnable and frozen ones together.": scatter(
            [_point(e, e.parameters) for e in shown if e.parameters is not None],
            "parameters, all",
            count,
        ),
        f"Accuracy against time, loading and caches included. {on}": scatter(
            [_point(e, e.row.seconds) for e in shown if e.row.seconds is not None],
            "ms per episode",
            milliseconds,
        ),
    }
    figures = [tag("figure", chart, tag("figcaption", text)) for text, chart in charts.items()]
    return tag("div", *figures, class_="charts")


def _point(entry: Entry, x: float) -> Point:
    row = entry.row
    record = row.records[min(row.records)]
    low, high = interval = row.interval or (0.0, 0.0)
    return Point(
        row=entry.id,
        label=one_line(f"{record.matcher} · {record.backbone}", 30),
        title=(
            f"{one_line(row.method)} on {one_line(row.backbone)}: {row.mean or 0.0:.1f} "
            f"({low:.1f}{TO}{high:.1f}), {count(row.parameters)} learnable, "
            f"{count(entry.parameters)} in all, {milliseconds(row.seconds)} ms"
        ),
        x=x,
        y=row.mean or 0.0,
        interval=interval,
        ranked=row.rank is not None,
    )


def _facts(table: Table) -> Html:
    data = table.record.dataset
    facts = {
        "Data": f"split {one_line(data.split)}, annotations {one_line(data.fingerprint)[:8]}",
        "Scored at": f"{one_line(table.record.score_size)} size",
    }
    for fold, episodes in table.episodes.items():
        without = ", ".join(map(one_line, episodes.dropped))
        facts[f"Fold {fold}"] = (
            f"{episodes.count} episodes of {episodes.images} query images, manifest "
            f"{one_line(episodes.digest)[:8]}"
            f"{f', images {one_line(episodes.content)[:8]}' if episodes.content else ''}"
            f"{f', without {without}' if without else ''}"
        )
    listed = [tag("div", tag("dt", name), tag("dd", text)) for name, text in facts.items()]
    summary = tag("summary", "Data and episodes")
    return tag("details", summary, tag("dl", *listed), class_="episodes")
