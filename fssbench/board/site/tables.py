"""A board's tables as HTML: what stands there without any script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from fssbench.board.published import PublishedRow, Source
from fssbench.board.replays import REASON
from fssbench.board.site.details import hardware
from fssbench.board.site.html import Html, join, tag
from fssbench.board.site.scatter import Point, scatter
from fssbench.board.tables import Board, Row, Table
from fssbench.board.text import NONE, count, milliseconds, one_line, score
from fssbench.results.method import training_facts
from fssbench.results.record import Record

Records = Mapping[int, Record]
TO = "\N{EN DASH}"


@attrs.frozen(kw_only=True)
class Entry:
    """A row with its id on the page, its records by fold, and their addresses."""

    id: str
    row: Row
    records: Records
    links: Mapping[int, str]


@attrs.frozen(kw_only=True)
class Column:
    """The head of a column.

    Attributes:
        name: as shown.
        first: how a first click sorts: the best on top.
        kind: class of its cells.
    """

    name: str
    first: str = "descending"
    kind: str = "number"


def measured(board: Board, table: Table, entries: Sequence[Entry], number: int, what: str) -> Html:
    """One measured table with its facts and its charts.

    Args:
        board: which one.
        table: one of it.
        entries: of the table's rows.
        number: of the table on the page.
        what: the protocol's line of description, or "".
    """
    setting = [tag("span", f"{table.shots}-shot", class_="chip strong")]
    if table.seed:
        setting.append(tag("span", f"seed {table.seed}", class_="chip"))
    if table.qualifier:
        setting.append(tag("span", one_line(table.qualifier), class_="chip"))
    if table.replay:
        setting.append(tag("span", REASON, class_="chip warn"))
    name = f"table-{number}"
    heading = tag("h3", one_line(table.protocol), " ", join(setting, " "), id=f"{name}-name")
    about = [tag("p", what, class_="about")] if what else []
    body = [heading, *about, _grid(table, entries, name), _charts(entries), _facts(table)]
    return _article("measured", board, table.protocol, table.shots, *body)


def published(board: Board, shots: int, rows: Sequence[PublishedRow], number: int) -> Html:
    """One table of printed numbers."""
    name = f"table-{number}"
    folds = any(any(row.folds) for row in rows)
    background = any(row.fb_iou for row in rows)
    columns = [
        Column(name="Method", first="ascending", kind="method"),
        Column(name="Backbone", first="ascending", kind="backbone"),
        Column(name="Mean" if folds else "mIoU"),
        *(Column(name=f"Fold {fold}") for fold in range(4) if folds),
        *([Column(name="FB-IoU")] if background else []),
        Column(name="Printed in", first="ascending", kind="text"),
    ]
    body = [_published_row(row, folds, background) for row in rows]
    caption = "As printed, sorted by the printed mean; an empty cell was not printed."
    heading = tag(
        "h3", "Printed in papers ", tag("span", f"{shots}-shot", class_="chip strong"),
        id=f"{name}-name",
    )  # fmt: skip
    grid = _table(name, caption, columns, body, ordered="Mean" if folds else "mIoU")
    return _article("published", board, "", shots, heading, grid)


def papers(board: Board) -> Html:
    """The full titles of what is cited."""
    sources = (s for rows in board.published.values() for row in rows for s in row.sources)
    titles: dict[str, Source] = {source.paper: source for source in sources}
    items = [
        tag(
            "li",
            tag("b", one_line(name)),
            f": {one_line(titles[name].title.removeprefix(f'{name}: '), 300)}",
        )
        for name in sorted(titles)
    ]
    return tag("details", tag("summary", "The papers"), tag("ul", *items), class_="papers")


def _article(kind: str, board: Board, protocol: str, shots: int, *body: str) -> Html:
    return tag(
        "article", *body, class_=f"board {kind}", data_kind=kind, data_dataset=board.dataset,
        data_protocol=protocol, data_shots=shots,
    )  # fmt: skip


def _grid(table: Table, entries: Sequence[Entry], name: str) -> Html:
    several = len(table.folds) > 1
    of = "" if table.averaged == table.folds else f" of {', '.join(map(str, table.averaged))}"
    mean = f"Mean{of}" if several else f"mIoU, fold {table.folds[0]}"
    columns = [
        Column(name="Rank", first="ascending", kind="rank"),
        Column(name="Method", first="ascending", kind="method"),
        Column(name="Backbone", first="ascending", kind="backbone"),
        Column(name=mean),
        *(Column(name=f"Fold {fold}") for fold in table.folds if several),
        Column(name="FB-IoU"),
        Column(name="Learnable", first="ascending"),
        Column(name="Time, ms", first="ascending"),
    ]
    above = [None, *(entry.row.rank for entry in entries)]
    body = [
        _row(entry, table.folds if several else (), tied=entry.row.rank == rank is not None)
        for entry, rank in zip(entries, above, strict=False)
    ]
    over = f"over folds {', '.join(map(str, table.averaged))}" if several else "of one fold"
    caption = (
        f"Class mIoU in percent, mean {over}, with its 95 % interval. Rows of one rank cannot be "
        "told apart on these episodes."
        if any(entry.row.rank for entry in entries)
        else f"Class mIoU in percent, mean {over}, with its 95 % interval. No row has a rank."
    )
    return _table(name, caption, columns, body, ordered="Rank", records=True)


def _table(
    name: str, caption: str, columns: Sequence[Column], body: Sequence[Html], *, ordered: str,
    records: bool = False,
) -> Html:  # fmt: skip
    heads = [_head(column, column.name == ordered) for column in columns]
    if records:
        heads.append(tag("th", "Records", scope="col", class_="links"))
    grid = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *body),
    )
    return tag(
        "div", grid, class_="scroll", role="region", tabindex=0, aria_labelledby=f"{name}-name"
    )


def _head(column: Column, ordered: bool) -> Html:
    arrow = tag("span", class_="arrow", aria_hidden="true")
    button = tag("button", column.name, arrow, type="button", class_="sort")
    said = column.first if ordered else None
    return tag(
        "th", button, scope="col", class_=column.kind, data_first=column.first, aria_sort=said
    )


def _row(entry: Entry, folds: Sequence[int], tied: bool) -> Html:
    row = entry.row
    rank = NONE if row.rank is None else str(row.rank)
    badge = tag("span", rank, class_="badge first" if row.rank == 1 else "badge")
    flags = [tag("span", one_line(note, 200), class_="flag") for note in row.notes]
    if any(training_facts(record).get("selected_on") == "novel" for record in _of(entry)):
        flags.append(tag("span", "selected on novel classes", class_="flag"))
    method, backbone = one_line(row.method), one_line(row.backbone)
    cells = [
        tag("td", badge, class_="rank", data_v=row.rank),
        *_who(method, backbone, flags),
        _mean(row, only=next(iter(row.folds.values()), None) if not folds else None),
        *(_number(row.folds.get(fold), score(row.folds.get(fold))) for fold in folds),
        _number(row.fb_iou, score(row.fb_iou)),
        _number(row.parameters, count(row.parameters)),
        _number(row.seconds, milliseconds(row.seconds)),
        tag("td", join(_links(entry), " "), class_="links"),
    ]  # fmt: skip
    return tag(
        "tr", *cells, data_row=entry.id, data_text=f"{method} {backbone}".lower(),
        data_ranked=row.rank is not None, class_="tied" if tied else None,
    )  # fmt: skip


def _who(method: str, backbone: str, flags: Sequence[Html]) -> list[Html]:
    """The cells of method and encoder; on a phone the second stands below the first."""
    name, variant = _parted(method)
    head = [tag("span", name, class_="name"), variant, tag("span", backbone, class_="below")]
    return [
        tag("th", *head, *flags, scope="row", class_="method", data_v=method),
        tag("td", *_parted(backbone), class_="backbone", data_v=backbone),
    ]


def _parted(label: str) -> tuple[str, Html]:
    """A name, and below it what stands in brackets after it."""
    name, _, variant = label.partition(" (")
    more = tag("span", variant.removesuffix(")"), class_="variant") if variant else Html("")
    return name, more


def _of(entry: Entry) -> list[Record]:
    return list(entry.records.values())


def _mean(row: Row, only: float | None) -> Html:
    value = row.mean if row.mean is not None else only
    if value is None or row.interval is None:
        return tag("td", score(value), class_="number mean", data_v=value)
    low, high = row.interval
    bar = tag(
        "span", tag("i"), class_="bar", aria_hidden="true",
        style=f"--v:{value:.2f};--low:{low:.2f};--high:{high:.2f}",
    )  # fmt: skip
    between = tag("span", f"{low:.1f}{TO}{high:.1f}", class_="interval")
    return tag(
        "td", tag("b", score(value)), " ", between, bar, class_="number mean", data_v=f"{value:.6f}"
    )


def _number(value: float | None, text: str) -> Html:
    return tag("td", text, class_="number", data_v=value)


def _links(entry: Entry) -> list[Html]:
    return [
        tag("a", str(fold), href=address, aria_label=f"Record of fold {fold}")
        for fold, address in entry.links.items()
    ]


def _charts(entries: Sequence[Entry]) -> Html:
    """Accuracy against all parameters and against time, when there is something to compare."""
    shown = [entry for entry in entries if entry.row.mean is not None and entry.row.interval]
    if len(shown) < 2:
        return Html("")
    machines = sorted({one_line(hardware(entry.records)) for entry in shown} - {""})
    on = f"All on {machines[0]}." if len(machines) == 1 else _MIXED + "; ".join(machines) + "."
    figures = [
        _figure(
            scatter([_point(e, _parameters(e)) for e in shown], "parameters, all", count),
            "Accuracy against parameters, learnable and frozen ones together.",
        ),
        _figure(
            scatter([_point(e, e.row.seconds) for e in shown], "ms per episode", milliseconds),
            f"Accuracy against time, loading and caches included. {on}",
        ),
    ]
    return tag("div", *figures, class_="charts")


_MIXED = "Measured on different hardware, so do not compare times across it: "


def _figure(picture: Html, caption: str) -> Html:
    return tag("figure", picture, tag("figcaption", caption))


def _parameters(entry: Entry) -> int:
    """The most of its folds: a fold's checkpoint may have fewer classes in its base learner."""
    costs = [record.cost for record in _of(entry)]
    return max(cost.learnable_parameters + cost.backbone_parameters for cost in costs)


def _point(entry: Entry, x: float) -> Point:
    row = entry.row
    record = _of(entry)[0]
    mean, interval = row.mean or 0.0, row.interval or (0.0, 0.0)
    low, high = interval
    return Point(
        row=entry.id,
        label=one_line(f"{record.matcher} · {record.backbone}", 30),
        title=(
            f"{one_line(row.method)} on {one_line(row.backbone)}: {mean:.1f} "
            f"({low:.1f}{TO}{high:.1f}), {count(row.parameters)} learnable, "
            f"{count(_parameters(entry))} in all, {milliseconds(row.seconds)} ms"
        ),
        x=x,
        y=mean,
        interval=interval,
        ranked=row.rank is not None,
    )


def _facts(table: Table) -> Html:
    facts = [
        ("Data", f"split {one_line(table.split)}, annotations {one_line(table.fingerprint)[:8]}"),
        ("Scored at", f"{one_line(table.score_size)} size"),
    ]
    facts += [
        (
            f"Fold {fold}",
            f"{episodes.count} episodes of {episodes.images} query images, manifest "
            f"{one_line(episodes.digest)[:8]}"
            + (f", without {', '.join(map(one_line, episodes.dropped))}" * bool(episodes.dropped)),
        )
        for fold, episodes in table.episodes.items()
    ]
    listed = [tag("div", tag("dt", name), tag("dd", text)) for name, text in facts]
    return tag(
        "details", tag("summary", "Data and episodes"), tag("dl", *listed), class_="episodes"
    )


def _published_row(row: PublishedRow, folds: bool, background: bool) -> Html:
    name = row.method + (f" ({row.venue_year})" if row.venue_year else "")
    method, backbone = one_line(name), one_line(row.backbone)
    flags = [tag("span", one_line(row.note, 300), class_="remark")] if row.note else []
    printed = "; ".join(f"{source.paper}, {source.table}" for source in row.sources)
    mean = _number(_value(row.mean), row.mean)
    cells = [
        *_who(method, backbone, flags),
        mean,
        *(_number(_value(value), value) for value in row.folds if folds),
        *([_number(_value(row.fb_iou), row.fb_iou)] if background else []),
        tag("td", one_line(printed, 300), class_="text", data_v=one_line(printed)),
    ]  # fmt: skip
    return tag("tr", *cells, data_text=f"{method} {backbone}".lower())


def _value(printed: str) -> float | None:
    try:
        return float(printed)
    except ValueError:
        return None
