"""The steps of GF-SAM on cases made by hand."""

from __future__ import annotations

import pytest
import torch

from fssbench_gfsam.graph import components, coverage
from fssbench_gfsam.growth import grow, growth_maps
from fssbench_gfsam.points import best_cells, pixels_of, point_prior
from fssbench_gfsam.selection import DROPPED, RESERVE, USED, merge, select
from fssbench_gfsam.similarity import Similarity, similarity, unit_range, units


def boxes(*rows, side=8):
    """Return masks of the rectangles (top, bottom, left, right), bool (N, side, side)."""
    masks = torch.zeros(len(rows), side, side, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, rows, strict=True):
        mask[top:bottom, left:right] = True
    return masks


# --- similarity -----------------------------------------------------------------------------------


def test_units_divide_by_the_length_over_cells_first():
    features = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]])
    expected = torch.tensor([[0.6, 1.0], [0, 0], [0, 0], [0.8, 0]])  # channels of length 5 and 1
    expected[0] /= expected[0].norm()
    expected[3] /= expected[3].norm()
    torch.testing.assert_close(units(features), expected)


QUERY = torch.tensor([[1.0, 0], [0.6, 0.8], [0, 1], [-1, 0]])
FIRST = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])  # rows of the grid: (1, 0) and (0, 1)
TOP = boxes((0, 1, 0, 2), side=2)


def test_similarity_to_foreground_and_background():
    found = similarity(QUERY, FIRST[None], TOP)
    across = torch.tensor([[1.0, 0.6], [0, -1]])
    along = torch.tensor([[0, 0.8], [1, 0]])
    torch.testing.assert_close(found.positive_mean, across)
    torch.testing.assert_close(found.positive_max, across.clamp(min=0))  # cells of weight 0 count
    torch.testing.assert_close(found.negative_mean, along)


def test_weights_of_cells_have_aligned_corners():
    mask = torch.tensor([[[1, 1, 0], [0, 1, 1], [0, 0, 1]]]).bool()  # its corners: 1 0, 0 1
    references = torch.eye(4)[None]
    found = similarity(torch.eye(4), references, mask)
    torch.testing.assert_close(found.positive_max, torch.eye(2))


def test_maps_of_several_shots_are_averaged():
    references = torch.stack([FIRST, FIRST.flip(1)])
    both = similarity(QUERY, references, TOP.expand(2, -1, -1))
    alone = [similarity(QUERY, each[None], TOP) for each in references]
    for name in ("positive_mean", "positive_max", "negative_mean"):
        expected = torch.stack([getattr(each, name) for each in alone]).mean(0)
        torch.testing.assert_close(getattr(both, name), expected)


def test_an_empty_mask_among_several_adds_zero():
    masks = torch.cat([TOP, torch.zeros_like(TOP)])
    both = similarity(QUERY, torch.stack([FIRST, FIRST]), masks)
    alone = similarity(QUERY, FIRST[None], TOP)
    torch.testing.assert_close(both.positive_mean, alone.positive_mean / 2)


@pytest.mark.parametrize("shots", [1, 2])
def test_empty_masks_alone_become_a_square_in_the_middle(shots):
    generator = torch.Generator().manual_seed(0)
    query, *references = torch.randn(1 + shots, 64, 5, generator=generator)
    empty = torch.zeros(shots, 40, 40, dtype=torch.bool)
    square = boxes(*[(13, 27, 13, 27)] * shots, side=40)
    found, expected = (similarity(query, torch.stack(references), m) for m in (empty, square))
    assert torch.equal(found.positive_mean, expected.positive_mean)
    assert found.positive_mean.any()
    assert not empty.any()
    tiny = similarity(QUERY, FIRST[None], torch.zeros(1, 2, 2, dtype=torch.bool))  # all of it
    torch.testing.assert_close(tiny.positive_mean, (QUERY @ FIRST.T).mean(1).view(2, 2))


# --- points ---------------------------------------------------------------------------------------


def maps(positive, negative):
    return Similarity(
        positive_mean=torch.tensor(positive), positive_max=torch.ones(2, 2),
        negative_mean=torch.tensor(negative),
    )  # fmt: skip


def test_prior_is_zero_where_the_negative_map_is_larger():
    prior = point_prior(maps([[1.0, 2.0], [3.0, 5.0]], [[0.0, 1.0], [0.2, 0.9]]))
    torch.testing.assert_close(prior, torch.tensor([[0.0, 0.0], [0.5, 1.0]]))
    assert unit_range(torch.full((2, 2), 3.0)).eq(0).all()


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ([[0.9, 0.1, 0.8], [0.0, 0.0, 0.9]], [[0, 0], [2, 1]]),  # sum 2.7, by x and then y
        ([[0.9, 0.8, 0.9], [0.9, 0.9, 0.0]], [[0, 0], [0, 1], [1, 1], [2, 0]]),
        ([[0.0, 0.3, 0.0], [0.1, 0.0, 0.0]], [[1, 0]]),
        ([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], []),
    ],
)
def test_number_and_order_of_points(prior, expected):
    cells = best_cells(torch.tensor(prior), 128)
    assert torch.equal(cells, torch.tensor(expected, dtype=torch.long).reshape(-1, 2))


def test_number_of_points_is_limited():
    prior = torch.tensor([[0.9, 0.95], [0.99, 0.9]])
    assert best_cells(prior, 2).tolist() == [[0, 1], [1, 0]]


def test_points_are_upper_left_corners():
    assert pixels_of(torch.tensor([[0, 1], [36, 2]]), 37, 1024).tolist() == [[0, 27], [996, 55]]


# --- graph ----------------------------------------------------------------------------------------


def test_coverage_has_masks_in_rows_and_points_in_columns():
    masks = boxes((0, 4, 0, 8), (0, 8, 6, 8))
    one, two = torch.tensor([[1, 2], [7, 6]]), torch.tensor([[7, 2], [2, 7]])
    assert coverage(masks, one).tolist() == [[True, False], [False, True]]
    assert coverage(masks, two).tolist() == [[True, False]] * 2


def test_components_are_weakly_connected():
    edges = torch.zeros(6, 6, dtype=torch.bool)
    for i, j in ((4, 0), (4, 5), (3, 1)):
        edges[i, j] = True
    assert components(edges).tolist() == [0, 1, 2, 1, 0, 0]
    assert components(torch.zeros(1, 1, dtype=torch.bool)).tolist() == [0]


@pytest.mark.parametrize("count", [2, 3, 17, 128])
def test_a_chain_is_one_component(count):
    chain = torch.ones(count, count).triu(1).tril(1).bool()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    assert components(chain[order][:, order]).eq(0).all()


# --- growth ---------------------------------------------------------------------------------------


def test_growth_maps():
    positive, negative = growth_maps(maps([[1.0, 2.0], [3.0, 5.0]], [[1.0, 2.0], [-1.0, 0.0]]))
    assert positive.tolist() == [[1, 4], [9, 25]]
    assert negative.tolist() == [[3, 6], [-3, 0]]  # times (5 + 1) / 2


def test_masks_grow_from_the_most_positive_one():
    """The region is the left half of 8 x 8 cells; its third and fourth columns are weaker."""
    positive, negative = torch.zeros(8, 8), torch.full((8, 8), 0.1)
    positive[:, :2], positive[:, 2:4] = 1.0, 0.5
    masks = boxes(
        (0, 8, 1, 6),  # third: adds two columns outside of the region
        (0, 8, 0, 2),  # first
        (0, 8, 0, 5),  # second: adds two columns inside and one outside
        (0, 8, 6, 8),  # fourth: outside
    )
    alone = boxes((0, 8, 1, 6))  # three columns inside, two outside
    labels = torch.tensor([0, 0, 0, 0, 1])
    foreground, scores = grow(torch.cat([masks, alone]), labels, positive, negative)
    assert foreground.tolist() == [False, True, True, False, True]
    assert scores.tolist() == [-16, -16, -16, -16, 8]  # of the mask visited last, in cells


def test_a_mask_that_adds_nothing_is_no_foreground():
    positive = torch.ones(8, 8)
    foreground, _ = grow(
        boxes((0, 8, 0, 8), (0, 8, 0, 8)), torch.zeros(2).long(), positive, 0 * positive
    )
    assert foreground.tolist() == [True, False]


# --- selection ------------------------------------------------------------------------------------

LEFT_RIGHT = torch.eye(2).repeat_interleave(4, 0).repeat(8, 1)  # 8 x 8 cells of two kinds


def test_selection_of_consistent_and_foreground_points():
    masks = boxes((0, 8, 0, 4), (0, 8, 0, 4), (0, 8, 4, 8), (0, 8, 4, 8), (0, 8, 4, 8))
    cells = torch.tensor([[0, 0], [3, 3], [5, 0], [7, 7], [1, 7]])  # the last one: wrong half
    labels = torch.tensor([0, 0, 1, 1, 1])
    foreground = torch.tensor([True, False, True, False, False])
    selection = select(LEFT_RIGHT, masks, labels, foreground, cells)
    assert selection.tolist() == [USED, RESERVE, USED, RESERVE, DROPPED]
    foreground[4] = True
    assert select(LEFT_RIGHT, masks, labels, foreground, cells)[4] == RESERVE


def test_a_component_of_mostly_inconsistent_points_has_no_consistent_one():
    masks = boxes((0, 8, 0, 4), (0, 8, 4, 8), (0, 8, 4, 8), (0, 8, 4, 8))
    cells = torch.tensor([[0, 0], [7, 7], [1, 7], [2, 7]])
    labels = torch.tensor([0, 1, 1, 1])
    foreground = torch.ones(4, dtype=torch.bool)
    selection = select(LEFT_RIGHT, masks, labels, foreground, cells)
    assert selection.tolist() == [USED, RESERVE, RESERVE, RESERVE]
    selection = select(LEFT_RIGHT, masks[:3], labels[:3], foreground[:3], cells[:3])
    assert selection.tolist() == [USED, USED, RESERVE]  # half of them are enough


def test_similarity_to_far_components_is_divided_by_the_distance():
    query = torch.tensor([[1.0, 0.0]]).repeat(64, 1)
    query[:32, 1] = 1  # the upper half is more similar to itself than the lower one
    query /= query.norm(dim=1, keepdim=True)
    masks = boxes((0, 4, 0, 8), (4, 8, 0, 8), (4, 8, 0, 8))
    labels, foreground = torch.tensor([0, 1, 1]), torch.ones(3, dtype=torch.bool)

    def of(x, y):
        cells = torch.tensor([[0, 3], [0, 7], [x, y]])
        return select(query, masks, labels, foreground, cells).tolist()[2]

    assert of(1, 3) == RESERVE  # of the wrong half, one step from the other component
    assert of(4, 3) == USED  # four steps


def test_the_prediction_is_the_union_of_used_masks():
    masks = boxes((0, 2, 0, 2), (4, 6, 4, 6), (7, 8, 7, 8))
    found = merge(masks, torch.tensor([USED, USED, RESERVE]), torch.zeros(3))
    assert torch.equal(found, masks[0] | masks[1])


@pytest.mark.parametrize(
    ("selection", "scores", "chosen"),
    [
        ([RESERVE, RESERVE, DROPPED], [1.0, 2.0, 3.0], 1),
        ([RESERVE, DROPPED, RESERVE], [-1.0, -5.0, -2.0], 1),  # the authors' quirk
        ([DROPPED, DROPPED, DROPPED], [1.0, 2.0, 3.0], 0),
    ],
)
def test_without_used_masks_one_is_chosen_by_its_score(selection, scores, chosen):
    masks = boxes((0, 2, 0, 2), (4, 6, 4, 6), (7, 8, 7, 8))
    found = merge(masks, torch.tensor(selection), torch.tensor(scores))
    assert torch.equal(found, masks[chosen])


def test_used_masks_without_pixels_are_replaced_too():
    masks = boxes((0, 0, 0, 0), (4, 6, 4, 6))
    found = merge(masks, torch.tensor([USED, RESERVE]), torch.tensor([0.0, 1.0]))
    assert torch.equal(found, masks[1])
