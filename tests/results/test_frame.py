"""Tests of tables of records."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

import fssbench
from fssbench.results.record import Record

BOARDS = Path(__file__).parents[2] / "leaderboards"


@pytest.fixture(scope="module")
def paths():
    return sorted((BOARDS / "results" / "shapes").rglob("record.json"))


def test_a_line_for_each_record(paths):
    found = fssbench.load_records(BOARDS / "results" / "shapes")
    assert list(found["folder"]) == [path.parent for path in paths]
    for path, line in list(zip(paths, found.to_dict("records"), strict=True))[::9]:
        record = Record.read(path)
        assert line["protocol"] == record.protocol
        assert line["miou"] == record.scores["miou"]
        assert (line["miou_low"], line["miou_high"]) == record.intervals["miou"]
        assert line["flops_per_episode"] == record.cost.flops_per_episode
        for name, value in record.config.items():
            if isinstance(value, str):
                assert line[f"option.{name}"] == value
        (one,) = record.to_frame().to_dict("records")
        assert one["created"] == record.created
        assert set(one) < set(line)
    assert found["manifest"].str.len().eq(64).all()


def test_rows_of_records(paths):
    """Classes have the IoU of the record."""
    folder = paths[0].parents[1]
    rows, records = fssbench.load_rows(folder), fssbench.load_records(folder)
    assert list(rows.columns[:4]) == ["folder", "index", "class_id", "query"]
    assert list(rows["folder"].unique()) == list(records["folder"])
    assert rows.index.is_unique
    one = fssbench.load_rows(str(paths[0].parent))
    assert one["query"].map(type).eq(str).all()
    record = Record.read(paths[0])
    assert list(one["index"]) == list(range(record.manifest.episodes))
    sums = one.groupby("class_id")[["intersection_fg", "union_fg"]].sum()
    iou = (100 * sums["intersection_fg"] / sums["union_fg"]).to_dict()
    assert iou == pytest.approx({each.class_id: each.iou for each in record.per_class})


@pytest.mark.parametrize("load", [fssbench.load_records, fssbench.load_rows])
def test_a_folder_without_records(load, tmp_path):
    with pytest.raises(fssbench.FssbenchError, match=r"no record\.json"):
        load(tmp_path)
    with pytest.raises(fssbench.FssbenchError, match="no such folder"):
        load(tmp_path / "missing")


def test_html_of_a_record_is_escaped(paths):
    record = Record.read(paths[0])
    html = record._repr_html_()
    assert f"{record.scores['miou']:.2f}" in html
    assert all(each.name in html for each in record.per_class)
    script = "<script>alert(1)</script>"
    hostile = attrs.evolve(
        record,
        matcher=script,
        per_class=tuple(attrs.evolve(each, name=script) for each in record.per_class),
    )
    assert "<script" not in hostile._repr_html_()
    assert "&lt;script" in hostile._repr_html_()


def test_html_of_boards(paths):
    boards = fssbench.load_boards(BOARDS / "results" / "coco20i")
    (board,) = boards
    html = boards._repr_html_()
    assert html.count("<table") == len(board.tables)
    for table in board.tables:
        assert f"{table.record.protocol}, {table.record.shots}-shot" in html
        for row in table.rows:
            mean = row.mean if len(table.folds) > 1 else row.folds[table.folds[0]]
            assert mean is None or f"<td>{mean:.1f}</td>" in html
    assert "<td>1</td>" in html
