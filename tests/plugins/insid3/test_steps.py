"""The steps on small cases that are worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fssbench_insid3.aggregation import cluster_scores, mask_at_size
from fssbench_insid3.candidates import candidates, mask_on_grid, reference_prototype, votes
from fssbench_insid3.clusters import clusters
from fssbench_insid3.debias import debias, positional_basis


def maps(*vectors: tuple[float, ...]) -> torch.Tensor:
    """Features (C, 1, w) of one row of positions, of unit length."""
    return functional.normalize(torch.tensor(vectors).float().T.unsqueeze(1), dim=0)


def test_positional_basis_is_the_direction_of_change():
    basis = positional_basis(maps((1, -0.5, 0), (1, 0.5, 0), (1, 0.5, 0), (1, -0.5, 0)), 1)
    torch.testing.assert_close(basis.abs(), torch.tensor([[0.0], [1.0], [0.0]]))


def test_debiased_features_lack_the_basis_and_have_unit_length():
    basis = torch.tensor([[0.0], [1.0], [0.0]])
    found = debias(maps((3, 7, 4), (0, -2, 1)), basis)
    torch.testing.assert_close(found, maps((3, 0, 4), (0, 0, 1)))


def test_no_components_remove_nothing():
    features = functional.normalize(torch.rand(4, 2, 3), dim=0)
    basis = positional_basis(features, 0)
    assert basis.shape == (4, 0)
    torch.testing.assert_close(debias(features, basis), features)


def test_mask_on_grid_is_the_majority_of_the_middle_pixels():
    mask = torch.zeros(40, 80, dtype=torch.uint8)
    mask[:20, :40] = 1
    mask[20:] = 255  # ignored pixels are background
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[:2, :2] = True
    assert torch.equal(mask_on_grid(mask, 40, (4, 4)), expected)


@pytest.mark.parametrize(
    ("rows", "columns", "cell"),
    [
        (slice(10, 11), slice(20, 21), (1, 2)),  # only a sample of the nearest neighbour
        (slice(32, 35), slice(16, 19), (3, 1)),  # no sample: the centre of mass
    ],
)
def test_an_object_smaller_than_a_cell_remains_as_one_cell(rows, columns, cell):
    mask = torch.zeros(40, 40, dtype=torch.uint8)
    mask[rows, columns] = 1
    assert mask_on_grid(mask, 40, (4, 4)).nonzero().tolist() == [list(cell)]


def test_an_object_that_vanishes_at_input_size_remains_as_the_cell_of_its_centre():
    mask = torch.zeros(400, 800, dtype=torch.uint8)
    mask[399, 799] = 1  # nearest neighbour of 40 pixels reads rows 390 and columns 780
    assert mask_on_grid(mask, 40, (4, 4)).nonzero().tolist() == [[3, 3]]


def test_a_mask_without_foreground_stays_without():
    assert not mask_on_grid(torch.full((30, 20), 255, dtype=torch.uint8), 40, (4, 4)).any()


def test_prototype_is_the_mean_of_shot_means_not_of_positions():
    references = torch.stack([maps((1, 0), (1, 0), (1, 0)), maps((0, 1), (1, 0), (1, 0))])
    masks = torch.tensor([[[True, True, True]], [[True, False, False]]])
    expected = torch.tensor([0.5, 0.5]) / 0.5**0.5
    torch.testing.assert_close(reference_prototype(references, masks), expected)


def test_shots_without_foreground_do_not_count_in_the_prototype():
    references = torch.stack([maps((1, 0)), maps((0, 1))])
    masks = torch.tensor([[[True]], [[False]]])
    torch.testing.assert_close(reference_prototype(references, masks), torch.tensor([1.0, 0.0]))
    assert not reference_prototype(references, torch.zeros_like(masks)).any()


def test_votes_count_the_supports_whose_nearest_position_is_foreground():
    query = maps((1, 0), (0, 1), (-1, 0))
    reference = maps((1, 0.1), (0.1, 1), (-1, 0.1))
    masks = torch.tensor([[[True, False, False]], [[True, True, False]]])
    found = votes(query, torch.stack([reference, reference]), masks)
    assert found.tolist() == [[2, 1, 0]]


@pytest.mark.parametrize(("shots", "needed"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_half_of_the_shots_rounded_up_decide(shots, needed):
    agreeing = torch.arange(shots + 1).unsqueeze(0)
    found = candidates(torch.ones(1, shots + 1), agreeing, shots)
    assert torch.equal(found, agreeing >= needed)


def test_candidates_need_a_positive_similarity_or_the_highest_tenth_if_there_is_none():
    all_agree = torch.ones(1, 11, dtype=torch.long)
    similarity = torch.arange(11.0).unsqueeze(0) - 3
    assert torch.equal(candidates(similarity, all_agree, 1), similarity > 0)
    negative = similarity - 20
    assert candidates(negative, all_agree, 1).nonzero().tolist() == [[0, 10]]
    assert not candidates(similarity, 0 * all_agree, 1).any()


def test_clusters_are_cut_at_the_average_cosine():
    # Cosines of neighbours: 0.8, 0, 0.6. The average between the two pairs is negative.
    features = maps((1, 0, 0), (0.8, 0.6, 0), (0, 0, 1), (-0.8, 0, 0.6))
    for tau, expected in [(0.9, 4), (0.7, 3), (0.5, 2), (-1, 1)]:
        labels = clusters(features, tau)
        assert labels.shape == (1, 4)
        assert labels.unique().tolist() == list(range(expected))
    pairs = clusters(features, 0.5)[0]
    assert pairs[0] == pairs[1] != pairs[2] == pairs[3]


def test_linkage_is_the_average_not_the_nearest():
    # A chain: neighbours are near (0.87), its ends are not (0).
    turns = torch.arange(4) * torch.pi / 6
    features = torch.stack([turns.cos(), turns.sin()]).unsqueeze(1)
    assert len(clusters(features, 0.8).unique()) == 2


def test_score_is_similarity_times_nearness_to_the_seed_times_share():
    features = maps((1, 0), (1, 0), (0.8, 0.6), (0.8, 0.6), (0, 1), (0, 1))
    labels = torch.tensor([[0, 0, 1, 1, 2, 2]])
    found = torch.tensor([[True, False, True, False, False, False]])
    prototype = torch.tensor([1.0, 0.0])
    similarity = torch.einsum("chw,c->hw", features, prototype)
    scores = cluster_scores(labels, found, similarity, prototype, features, features)
    # The seed is 0, its share counts as 1; half of 1 are candidates, none of 2.
    torch.testing.assert_close(scores, torch.tensor([1, 0.8 * 0.8 / 2, 0]))


def test_the_seed_has_candidates():
    features = maps((1, 0), (0.8, 0.6))
    found = torch.tensor([[False, True]])
    prototype = torch.tensor([1.0, 0.0])
    scores = cluster_scores(
        torch.tensor([[0, 1]]), found, features[0], prototype, features, features
    )
    torch.testing.assert_close(scores, torch.tensor([0, 0.8]))


def test_mask_at_size_goes_by_way_of_the_input_side():
    mask = torch.tensor([[True, False], [False, False]])
    found = mask_at_size(mask, 8, (16, 4))
    assert found.shape == (16, 4)
    assert found[:7, :1].all()
    assert not found[9:].any()
    assert not found[:, 2:].any()
    assert not mask_at_size(mask & False, 8, (16, 4)).any()
