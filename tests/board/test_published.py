"""Published numbers."""

import csv
import importlib.resources
from statistics import fmean

import pytest

from fssbench.board.published import published_rows

# Printed means that differ from those of the printed folds; the notes of the rows mention it.
MISPRINTS = {("pascal5i", "1", "gf-sam"), ("coco20i", "1", "abcb")}


def lines() -> list[dict[str, str]]:
    file = importlib.resources.files("fssbench.board") / "published" / "results.csv"
    return list(csv.DictReader(file.read_text("utf-8").splitlines()))


def test_folds_average_to_the_printed_mean():
    checked = 0
    for line in lines():
        folds = [line[f"fold{fold}"] for fold in range(4)]
        if not all(folds):
            continue
        checked += 1
        off = abs(fmean(map(float, folds)) - float(line["miou"]))
        misprint = (line["dataset"], line["shots"], line["method_key"]) in MISPRINTS
        assert (off > 0.15) == misprint, line
        assert ("not the printed mean" in line["note"]) == misprint, line
    assert checked == 216


def test_every_line_names_its_paper_and_table():
    assert len(lines()) == 264
    titles = {line["paper"]: line["source"] for line in lines()}
    assert set(titles) == {"HDMNet", "DCAMA", "FS-DINO", "UINO-FSS"}
    assert all(len(title) > 40 for title in titles.values())
    assert all(line["table"].startswith("Table") for line in lines())


@pytest.mark.parametrize(
    ("dataset", "shots", "method", "backbone", "mean"),
    [
        ("pascal5i", 1, "HDMNet", "ResNet-50", "69.4"),
        ("coco20i", 5, "HDMNet", "ResNet-50", "56.0"),
        ("pascal5i", 1, "DCAMA", "Swin-B", "69.3"),
        ("coco20i", 1, "FS-DINO", "DINOv2-B", "62.4"),
        ("pascal5i", 1, "UINO-FSS", "DINOv2-B", "80.6"),
        ("fss1000", 1, "UINO-FSS", "", "89.0"),
        ("coco20i", 1, "FS-DINO (BA+PCS)", "DINOv2-B", "58.2"),
        ("coco20i", 1, "UINO-FSS (BA+PCS)", "DINOv2-B", "58.2"),
        ("coco20i", 1, "UINO-FSS (BA+SVP+MHCM)", "DINOv2-B", "62.3"),
        ("coco20i", 1, "UINO-FSS w/ CP4D Conv", "DINOv2-B", "64.0"),
        ("pascal5i", 1, "UINO-FSS w/ CP4D Conv", "DINOv2-B", "79.7"),
        ("coco20i", 1, "UINO-FSS-Comp w/o distillation", "DINOv2-B", "52.8"),
    ],
)
def test_the_four_papers_own_numbers(dataset, shots, method, backbone, mean):
    rows = published_rows(dataset)[shots]
    found = {row.mean for row in rows if (row.method, row.backbone) == (method, backbone)}
    assert mean in found


def test_the_highest_mean_comes_first_and_no_mean_last():
    for dataset in ("pascal5i", "coco20i", "fss1000"):
        for rows in published_rows(dataset).values():
            means = [float(row.mean or "-inf") for row in rows]
            assert means == sorted(means, reverse=True)


def test_a_suspect_value_says_so():
    (matcher,) = [row for row in published_rows("fss1000")[1] if row.method.startswith("Matcher")]
    assert matcher.mean == "33.0"
    assert "suspect" in matcher.note


def test_lines_that_papers_share_are_one_row():
    rows = [row for row in published_rows("pascal5i")[1] if row.method == "GF-SAM"]
    (row,) = rows
    assert [source.paper for source in row.sources] == ["FS-DINO", "UINO-FSS"]
    assert row.venue_year == "NeurIPS'24"


def test_davis_rows_are_j_and_f():
    (rows,) = published_rows("davis17").values()
    assert {row.metric for row in rows} == {"J&F"}
    assert [(row.method, row.mean) for row in rows[:2]] == [
        ("Matcher†", "79.5"),
        ("FS-DINO", "76.6"),
    ]
    assert len(rows) == 7
    assert all(row.metric == "mIoU" for row in published_rows("fss1000")[1])
    assert published_rows("nothing") == {}


def test_fs_dino_is_cited_in_one_version():
    versions = {line["source"].partition("arXiv ")[2][:12] for line in lines()} - {""}
    assert versions == {"2504.15669v2", "2504.15669v4"}
