"""J and F: hand-made cases, and DAVIS's definition by dilation."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest
import torch
from scipy.ndimage import binary_dilation

import fssbench
from fssbench import FssbenchError
from fssbench.metrics import boundary


def square(size, top, left, side, width=None):
    mask = np.zeros((size, width or size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def measured(prediction, target):
    columns = fssbench.metric("boundary").measure(
        torch.from_numpy(prediction)[None], torch.from_numpy(np.asarray(target, np.uint8))[None]
    )
    return columns["region_j"].item(), columns["boundary_f"].item()


def davis_outline(mask):
    """Compute the outline by its definition, pixel by pixel."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for i in range(height):
        for j in range(width):
            near = [
                (y, x)
                for y, x in ((i, j + 1), (i + 1, j), (i + 1, j + 1))
                if y < height and x < width
            ]
            found[i, j] = any(mask[i, j] != mask[y, x] for y, x in near)
    return found


def davis_f(prediction, target):
    """Compute F from precision and recall after dilation with a disk."""
    found, true = davis_outline(prediction), davis_outline(target)
    radius = math.ceil(0.008 * np.linalg.norm(target.shape))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    precision = (found & binary_dilation(true, disk)).sum() / found.sum()
    recall = (true & binary_dilation(found, disk)).sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_equal_masks_score_1():
    mask = square(50, 10, 12, 20)
    assert measured(mask, mask) == (1.0, 1.0)


def test_a_shift_within_the_tolerance_costs_regions_but_no_boundary():
    # 100 x 100: tolerance ceil(0.008 * 141.4) = 2 pixels.
    target = square(100, 20, 20, 40)
    j, f = measured(square(100, 22, 20, 40), target)
    assert j == pytest.approx(38 * 40 / (42 * 40))
    assert f == 1.0
    assert measured(square(100, 23, 20, 40), target)[1] < 1.0


def test_masks_far_apart_score_0():
    assert measured(square(100, 5, 5, 10), square(100, 70, 70, 10)) == (0.0, 0.0)


def test_precision_and_recall_by_hand():
    # Two equally long outlines, of which the prediction has one: precision 1, recall 1/2.
    target = square(100, 10, 10, 20) | square(100, 60, 60, 20)
    j, f = measured(square(100, 10, 10, 20), target)
    assert j == pytest.approx(0.5)
    assert f == pytest.approx(2 / 3)


@pytest.mark.parametrize(("full", "expected"), [(False, 1.0), (True, 0.0)])
def test_empty_masks(full, expected):
    empty = np.zeros((40, 40), dtype=bool)
    other = square(40, 10, 10, 10) if full else empty
    assert measured(empty, other) == (expected, expected)
    assert measured(other, empty) == (expected, expected)


def test_an_image_that_is_all_foreground_has_no_boundary():
    everything = np.ones((30, 30), dtype=bool)
    assert measured(everything, everything) == (1.0, 1.0)
    assert measured(square(30, 5, 5, 10), everything)[1] == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_definition_by_dilation(seed):
    generator = np.random.default_rng(seed)
    shape = (int(generator.integers(30, 90)), int(generator.integers(30, 160)))
    smooth = [
        np.kron(generator.random((8, 8)), np.ones((20, 20)))[: shape[0], : shape[1]] for _ in "ab"
    ]
    prediction, target = smooth[0] > 0.5, smooth[0] + 0.4 * smooth[1] > 0.75
    np.testing.assert_array_equal(boundary.outline(target), davis_outline(target))
    assert measured(prediction, target)[1] == pytest.approx(davis_f(prediction, target), abs=1e-12)


def test_ignored_pixels_are_background_in_both():
    target = square(60, 10, 10, 30).astype(np.uint8)
    target[10:20, 10:40] = 255
    prediction = square(60, 10, 10, 30)
    assert measured(prediction, target) == (1.0, 1.0)


def test_padding_changes_nothing():
    target, prediction = square(100, 20, 20, 40), square(100, 23, 21, 38)
    alone = measured(prediction, target)
    padded = np.full((300, 260), 255, np.uint8)
    padded[:100, :100] = target
    wide = np.zeros((300, 260), dtype=bool)
    wide[:100, :100] = prediction
    assert measured(wide, padded) == alone
    assert measured(wide, np.full_like(padded, 255)) == (1.0, 1.0)


def test_classes_are_averaged_after_their_episodes():
    rows = pandas.DataFrame(
        {"class_id": [3, 3, 5], "region_j": [1.0, 0.5, 0.25], "boundary_f": [0.8, 0.4, 0.2]}
    )
    scores = fssbench.metric("boundary").summarise(rows, (3, 5))
    assert scores == pytest.approx({"j": 50.0, "f": 40.0, "j_and_f": 45.0})
    with pytest.raises(FssbenchError, match="no row of class 4"):
        fssbench.metric("boundary").summarise(rows, (3, 4))


def test_found_by_the_names_of_its_scores():
    assert type(fssbench.metric("j-and-f")) is type(fssbench.metric("boundary"))
