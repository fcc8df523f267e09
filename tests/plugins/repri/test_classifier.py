"""The classifier, on cases computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fssbench_repri.classifier import Classifier
from fssbench_repri.config import RePriConfig

EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


def row(*vectors):
    """Features of an image with one row of pixels, (C, 1, w)."""
    return torch.tensor(vectors).T[:, None]


def make(support, labels, query, valid=None, **options):
    return Classifier(
        torch.stack([row(*each) for each in support]),
        torch.tensor(labels, dtype=torch.uint8)[:, None],
        row(*query),
        RePriConfig(**options),
        valid=None if valid is None else torch.tensor([valid]),
    )


def drawn(shots=2, dtype=torch.float32, **options):
    """A classifier of random features, a fifth of whose support pixels are ignored."""
    generator = torch.Generator().manual_seed(3)
    maps = functional.normalize(torch.randn(shots + 1, 5, 4, 6, generator=generator), dim=1)
    labels = torch.randint(0, 5, (shots, 4, 6), generator=generator)
    labels = torch.where(labels == 4, 255, labels % 2)
    maps = maps.to(dtype)
    return Classifier(maps[:-1], labels, maps[-1], RePriConfig(**options))


def state(classifier):
    return torch.cat([classifier.prototype, classifier.bias[None]]).detach().clone()


def test_one_step_by_hand():
    made = make([(EAST, NORTH)], [[1, 0]], (EAST, NORTH), temperature=4, lr=0.5)
    # The logits are 4 and 0, the bias is their mean, so both pixels are right with 1 - s.
    s = 1 / (1 + math.exp(2))
    assert made.prototype.tolist() == [1, 0]
    assert float(made.bias) == 2
    assert made.proportions.tolist() == pytest.approx([0.5, 0.5])
    found, of_prototype, of_bias = made.step()
    assert found.cross_entropy.item() == pytest.approx(-math.log(1 - s))
    assert found.divergence.item() == pytest.approx(0, abs=1e-7)
    entropy = -s * math.log(s) - (1 - s) * math.log(1 - s)
    assert found.entropy.item() == pytest.approx(entropy)
    # Turning the prototype towards the second pixel: 4 s / 2 of the cross entropy, and of the
    # entropy, whose derivative at the logit -2 is 2 s (1 - s), again 4 / 2 of it.
    expected = 2 * s + 4 * s * (1 - s)
    assert of_prototype.tolist() == pytest.approx([0, expected], abs=1e-6)
    assert float(of_bias) == pytest.approx(0, abs=1e-6)
    assert made.prototype.tolist() == pytest.approx([1, -0.5 * expected], abs=1e-6)


@pytest.mark.parametrize("weights", [{}, {"kl_weight": 3.0, "entropy_weight": 0.2}])
def test_gradients_are_those_of_finite_differences(weights):
    made = drawn(dtype=torch.float64, temperature=5, **weights)
    with torch.no_grad():  # away from the start, where the divergence has no gradient
        made.bias += 0.7
    start, step = state(made), 1e-6

    def total(point):
        made.prototype, made.bias = point[:-1], point[-1]
        found = made.objective()
        weighted = made.kl_weight * found.divergence + made.entropy_weight * found.entropy
        return found.cross_entropy + weighted

    expected = torch.stack(
        [(total(start + step * e) - total(start - step * e)) / (2 * step)
         for e in torch.eye(len(start), dtype=start.dtype)]
    )  # fmt: skip
    made.prototype, made.bias = start[:-1].clone(), start[-1].clone()
    _, *gradients = made.step()
    torch.testing.assert_close(torch.cat([gradients[0], gradients[1][None]]), expected)
    assert expected.abs().min() > 1e-4


def test_prototype_pools_the_pixels_of_all_shots():
    made = make([(EAST, EAST), (NORTH, WEST)], [[1, 1], [1, 0]], (EAST, NORTH))
    assert made.prototype.tolist() == pytest.approx([2 / 3, 1 / 3])  # not the mean of shots' means
    assert (made.kl_weight, made.entropy_weight) == (0.5, 0.5)


def test_ignored_pixels_of_supports_have_no_influence():
    one, other = (
        make([(EAST, NORTH, ignored)], [[1, 0, 255]], (EAST, NORTH, WEST))
        for ignored in (NORTH, WEST)
    )
    one.fit(), other.fit()
    assert torch.equal(state(one), state(other))


def test_invalid_pixels_of_the_query_count_for_the_bias_alone():
    query = (EAST, NORTH, WEST)
    every, two = (make([(EAST, NORTH)], [[1, 0]], query, valid=valid, temperature=3)
                  for valid in (None, [True, True, False]))  # fmt: skip
    assert float(every.bias) == float(two.bias) == 0
    share = [1 / (1 + math.exp(-logit)) for logit in (3, 0, -3)]
    assert float(every.proportions[1]) == pytest.approx(sum(share) / 3)
    assert float(two.proportions[1]) == pytest.approx(sum(share[:2]) / 2)
    surprise = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in share]
    assert float(two.objective().entropy) == pytest.approx(sum(surprise[:2]) / 2)


def test_iterations_are_one_more_than_steps():
    made, by_hand = drawn(iterations=4), drawn(iterations=1)
    before = state(by_hand)
    by_hand.fit()
    assert torch.equal(state(by_hand), before)
    made.fit()
    for _ in range(3):
        by_hand.step()
    assert torch.equal(state(made), state(by_hand))


def test_proportions_are_estimated_again():
    made = drawn(iterations=3, proportion_updates=(3,))
    first = made.proportions
    made.step(), made.step()
    expected = made.query.mean(made.probabilities(made.query))
    made = drawn(iterations=3, proportion_updates=(3,))
    made.fit()
    assert torch.equal(made.proportions, expected)
    assert not torch.equal(made.proportions, first)
    assert (made.kl_weight, made.entropy_weight) == (1.5, 0.5)


@pytest.mark.parametrize("options", [{"kl_weight": 0.0}, {"proportion_updates": ()}])
def test_proportions_of_the_start_last(options):
    made = drawn(iterations=12, **options)
    first, weight = made.proportions, made.kl_weight
    made.fit()
    assert torch.equal(made.proportions, first)
    assert made.kl_weight == weight


def test_saturated_background_has_no_gradient():
    """Above a margin of 16.6 the background's probability, 1 - sigmoid, is 0 in float32."""
    made = make([(EAST, EAST)], [[1, 0]], (WEST, WEST))
    found, of_prototype, of_bias = made.step()  # margins: 40 in the support, 0 in the query
    assert made.probabilities(made.support)[0].tolist() == [[[0, 0]]]
    assert found.cross_entropy.item() == pytest.approx(-math.log(1e-10) / 2)
    assert of_prototype.tolist() == [0, 0]
    assert float(of_bias) == 0


def test_a_query_of_one_class_has_finite_gradients():
    made = make([(EAST, NORTH)], [[1, 0]], (EAST, EAST))
    made.bias = torch.tensor(-30.0)
    found, *gradients = made.step()
    assert found.marginal.tolist() == [0, 1]
    assert found.divergence.item() == pytest.approx(-math.log(0.5), rel=1e-5)
    assert all(torch.isfinite(each).all() for each in gradients)


@pytest.mark.parametrize("label", [0, 1, 255])
def test_supports_of_one_label(label):
    made = drawn()
    made = Classifier(
        made.support.features, torch.full((2, 4, 6), label), made.query.features[0], RePriConfig()
    )
    made.fit()
    assert torch.isfinite(made.logits(made.query) - made.bias).all()
    assert torch.isfinite(made.objective().cross_entropy)


def test_a_disabled_gradient_is_enabled():
    made, other = drawn(), drawn()
    made.fit()
    with torch.no_grad():
        other.fit()
    assert torch.equal(state(made), state(other))
