"""ROM and RUM on cases that can be counted by hand."""

from __future__ import annotations

import math

import pandas
import pytest
import torch

from fssbench import FssbenchError, metric


def picture(*rows):
    """Return a mask from rows of text: # is foreground, ? is ignored."""
    values = {"#": 1, "?": 255, ".": 0}
    return torch.tensor([[values[c] for c in row] for row in rows], dtype=torch.uint8)[None]


def rom_rum(prediction, target):
    columns = metric("regions").measure(prediction == 1, target)
    assert {c.dtype for c in columns.values()} == {torch.float64}
    return columns["rom"].item(), columns["rum"].item()


WHOLE = picture("########", "########")
HALVES = picture("###..###", "###..###")
THIRDS = picture("##.##.##", "##.##.##")


def test_equal_regions_are_perfect():
    for plane in (WHOLE, HALVES, THIRDS):
        assert rom_rum(plane, plane) == (0.0, 0.0)


def test_one_object_in_parts():
    # one target region, two parts: 1·2 / (1·2) · (2 - 1); three parts: 1·3 / (1·3) · (3 - 1)
    assert rom_rum(HALVES, WHOLE) == pytest.approx((math.tanh(1.0), 0.0))
    assert rom_rum(THIRDS, WHOLE) == pytest.approx((math.tanh(2.0), 0.0))


def test_several_objects_in_one():
    assert rom_rum(WHOLE, HALVES) == pytest.approx((0.0, math.tanh(1.0)))
    assert rom_rum(WHOLE, THIRDS) == pytest.approx((0.0, math.tanh(2.0)))


def test_regions_that_are_right_make_the_ratio_smaller():
    # Two target regions, one of them in two parts; three predicted regions: 1·2 / (2·3) · 1.
    target = picture("#####..#", "#####..#")
    found = picture("##.##..#", "##.##..#")
    assert rom_rum(found, target) == pytest.approx((math.tanh(1 / 3), 0.0))
    # A predicted region on the background counts among the predicted ones: 1·2 / (1·3) · 1.
    target = picture("#####...", "#####...")
    assert rom_rum(found, target) == pytest.approx((math.tanh(2 / 3), 0.0))


def test_both_at_once():
    # Left and right target; the first prediction covers part of both, the second part of the right.
    target = picture("###.####", "###.####")
    found = picture("####...#", "..###..#")
    # over: the right target has 2 parts: 1·2 / (2·2) · 1; under: one found joins 2: 1·2 / (2·2) · 1
    assert rom_rum(found, target) == pytest.approx((math.tanh(0.5), math.tanh(0.5)))


def test_corners_connect_and_ignored_pixels_do_not():
    assert rom_rum(picture("#.", ".#"), picture("##", "##")) == (0.0, 0.0)
    # Ignored pixels divide regions of target and prediction alike.
    assert rom_rum(picture("#####"), picture("##?##")) == (0.0, 0.0)


def test_nothing_predicted_or_nothing_there():
    nothing = torch.zeros_like(WHOLE)
    assert rom_rum(nothing, WHOLE) == (0.0, 0.0)
    assert rom_rum(WHOLE, nothing) == (0.0, 0.0)


def test_means_over_episodes():
    rows = pandas.DataFrame({"class_id": [0, 0, 3], "rom": [0.0, 0.3, 0.6], "rum": [0.0, 0.0, 0.3]})
    assert metric("rom").summarise(rows) == pytest.approx({"rom": 0.3, "rum": 0.1})
    with pytest.raises(FssbenchError, match="no row of class 1"):
        metric("rum").summarise(rows, (0, 1, 3))
    with pytest.raises(FssbenchError, match="no row at all"):
        metric("rum").summarise(rows[:0])


def test_batches():
    prediction, target = torch.cat([HALVES, WHOLE]), torch.cat([WHOLE, HALVES])
    columns = metric("regions").measure(prediction == 1, target)
    assert columns["rom"].tolist() == pytest.approx([math.tanh(1.0), 0.0])
    assert columns["rum"].tolist() == pytest.approx([0.0, math.tanh(1.0)])
