"""IoU of hand-made cases, and of the authors' own evaluators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from fssbench import metric
from fssbench.errors import FssbenchError
from fssbench.metrics.iou import IoU
from fssbench.metrics.metric import Metric


def rows_of(class_ids, columns):
    table = {"index": range(len(class_ids)), "class_id": class_ids, "query": map(str, class_ids)}
    return pandas.DataFrame({**table, **columns})


def test_counts_by_hand():
    target = torch.tensor([[[1, 1, 0, 0], [255, 255, 0, 1]]], dtype=torch.uint8)
    prediction = torch.tensor([[[1, 0, 1, 0], [1, 0, 0, 0]]], dtype=torch.bool)
    counts = IoU().measure(prediction, target)
    assert {name: column.tolist() for name, column in counts.items()} == {
        "intersection_fg": [1], "union_fg": [4], "intersection_bg": [2], "union_bg": [5],
    }  # fmt: skip
    assert all(column.dtype == torch.int64 for column in counts.values())


def test_padding_with_ignore_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (3, 9, 7), generator=generator).to(torch.uint8)
    prediction = torch.rand(3, 9, 7, generator=generator) > 0.5
    plain = IoU().measure(prediction, target)
    wide = torch.full((3, 12, 11), 255, dtype=torch.uint8)
    wide[:, :9, :7] = target
    marked = torch.ones(3, 12, 11, dtype=torch.bool)
    marked[:, :9, :7] = prediction
    padded = IoU().measure(marked, wide)
    for name, column in plain.items():
        assert torch.equal(column, padded[name])


def test_the_three_scores_by_hand():
    rows = rows_of(
        [3, 3, 5],
        {"intersection_fg": [1, 9, 2], "union_fg": [10, 10, 4],
         "intersection_bg": [5, 5, 5], "union_bg": [10, 10, 10]},
    )  # fmt: skip
    scores = IoU().summarise(rows, [3, 5])
    assert scores["miou"] == pytest.approx(100 * (10 / 20 + 2 / 4) / 2)
    assert scores["fb_iou"] == pytest.approx(100 * (12 / 24 + 15 / 30) / 2)
    assert scores["episode_miou"] == pytest.approx(100 * (0.1 + 0.9 + 0.5) / 3)


def test_a_class_without_rows_is_named_and_never_counted_as_zero():
    rows = rows_of([3], {c: [1] for c in IoU.columns})
    with pytest.raises(FssbenchError, match="no row of class 5, 7"):
        IoU().summarise(rows, [3, 5, 7])
    assert IoU().summarise(rows)["miou"] == 100.0
    with pytest.raises(FssbenchError, match="no row at all"):
        IoU().summarise(rows.iloc[:0])


def test_sums_are_exact_beyond_float32():
    big = 2**24 + 1
    rows = rows_of(
        [0] * 1000, {"intersection_fg": [big] * 1000, "union_fg": [2 * big] * 1000,
                     "intersection_bg": [0] * 1000, "union_bg": [1] * 1000},
    )  # fmt: skip
    table = IoU().per_class(rows)
    assert table["iou"].iloc[0] == 50.0


@pytest.mark.parametrize("name", ["iou", "miou", "fb_iou", "episode_miou"])
def test_by_name(name):
    made = metric(name)
    assert isinstance(made, IoU)
    assert isinstance(made, Metric)


GOLDEN = Path(__file__).parents[3] / "shared" / "golden"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="numbers of the authors' codes are not here")
@pytest.mark.parametrize("name", ["eval_pascal_fold2_first100", "eval_coco_fold1_first100"])
def test_rows_give_the_authors_numbers(name):
    """Compare with Evaluator and AverageMeter of HSNet and DCAMA, and HDMNet's accumulation."""
    golden = np.load(GOLDEN / f"{name}.npz")
    height, width = golden["size"]

    def masks(part):
        bits = np.unpackbits(golden[f"{part}__bits"], axis=1)[:, : height * width]
        return torch.from_numpy(bits.reshape(-1, height, width).copy())

    target = masks("gt")
    target[masks("ignore") == 1] = 255
    counts = IoU().measure(masks("pred").bool(), target)
    for part, columns in (
        ("inter", ("intersection_bg", "intersection_fg")),
        ("union", ("union_bg", "union_fg")),
    ):
        ours = torch.stack([counts[c] for c in columns], 1).numpy()
        np.testing.assert_array_equal(ours, golden[part])
    rows = rows_of(golden["class_id"].tolist(), {k: v.numpy() for k, v in counts.items()})
    table = IoU().per_class(rows)
    asked = golden["class_ids_interest"].tolist()
    for position, class_id in enumerate(asked):
        authors = golden["iou_fg_per_class"][position]
        if class_id in table.index:
            assert table["iou"][class_id] == pytest.approx(authors, abs=1e-5)
            assert table["background_iou"][class_id] == pytest.approx(
                golden["iou_bg_per_class"][position], abs=1e-5
            )
        else:
            assert class_id == 41  # no such episode; the authors count it as 0
            assert authors == 0
    scores = IoU().summarise(rows)
    assert scores["fb_iou"] == pytest.approx(float(golden["fb_iou"]), abs=1e-5)
    assert scores["fb_iou"] == pytest.approx(float(golden["hdmnet_fb_iou"]), abs=1e-5)
    if set(asked) == set(table.index):
        assert scores["miou"] == pytest.approx(float(golden["miou"]), abs=1e-5)
        assert scores["miou"] == pytest.approx(float(golden["hdmnet_miou"]), abs=1e-5)
    else:
        # The authors' mean takes the absent class as 0 among the fold's twenty.
        as_they_do = scores["miou"] * len(table) / len(asked)
        assert as_they_do == pytest.approx(float(golden["miou"]), abs=1e-5)
