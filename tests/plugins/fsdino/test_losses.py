"""Dice and binary cross entropy against reference values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fssbench.nn import mask_bce
from fssbench_fsdino.losses import dice_loss, mask_losses


def case(seed=0, batch=3):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, 7, 9, generator=generator)
    masks = torch.randint(0, 2, (batch, 7, 9), generator=generator).to(torch.uint8)
    masks[:, 0] = 255
    return logits, masks


def test_cross_entropy_is_the_mean_log_loss_of_valid_pixels():
    logits, masks = case()
    each = []
    for row, truth in zip(logits.double().numpy(), masks.numpy(), strict=True):
        p = 1 / (1 + np.exp(-row[truth != 255]))
        y = truth[truth != 255]
        each.append(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))  # sklearn's log_loss
    assert mask_bce(logits, masks).item() == pytest.approx(np.mean(each), rel=1e-6)


def test_the_foreground_can_weigh_more_in_the_cross_entropy():
    logits = torch.tensor([[[2.0, -1.0, 0.5, 3.0]]])
    masks = torch.tensor([[[1, 1, 0, 255]]], dtype=torch.uint8)
    of_foreground = math.log1p(math.exp(-2.0)) + math.log1p(math.exp(1.0))
    of_background = math.log1p(math.exp(0.5))
    expected = (4 * of_foreground + of_background) / 3
    assert mask_bce(logits, masks, 4.0).item() == pytest.approx(expected, rel=1e-6)
    losses = mask_losses(logits, logits, masks, 4.0)
    assert losses["bce"].item() == losses["prior_bce"].item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(losses["dice"], dice_loss(logits, masks))


def test_dice_of_certain_masks_is_one_minus_f1():
    logits, masks = case()
    hard = torch.where(logits > 0, 1e4, -1e4)
    each = []
    for row, truth in zip((hard > 0).numpy(), masks.numpy(), strict=True):
        valid = truth != 255
        hits = (row & (truth == 1))[valid].sum()
        each.append(2 * hits / (row[valid].sum() + (truth == 1).sum()))  # sklearn's f1_score
    assert dice_loss(hard, masks, smooth=0.0).item() == pytest.approx(1 - np.mean(each), rel=1e-6)


def test_dice_of_probabilities():
    logits = torch.tensor([[[0.0, math.log(3.0)]]])  # probabilities 1/2 and 3/4
    masks = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    expected = 1 - (2 * 0.5 + 1) / (0.5 + 0.75 + 1 + 1)
    assert dice_loss(logits, masks).item() == pytest.approx(expected, rel=1e-6)


def test_losses_of_perfect_and_undecided_masks():
    masks = torch.ones(2, 4, 4, dtype=torch.uint8)
    assert dice_loss(torch.full((2, 4, 4), 50.0), masks).item() == pytest.approx(0, abs=1e-6)
    assert mask_bce(torch.zeros(2, 4, 4), masks).item() == pytest.approx(math.log(2))
    assert dice_loss(torch.full((2, 4, 4), -50.0), torch.zeros_like(masks)).item() == pytest.approx(
        0, abs=1e-6
    )


@pytest.mark.parametrize("loss", [dice_loss, mask_bce])
def test_ignored_pixels_have_no_effect_and_no_gradient(loss):
    logits, masks = case()
    other = torch.where(masks == 255, logits + 5, logits).requires_grad_()
    value = loss(other, masks)
    assert value.item() == pytest.approx(loss(logits, masks).item(), rel=1e-6)
    value.backward()
    assert torch.equal(other.grad[masks == 255], torch.zeros_like(other.grad[masks == 255]))


@pytest.mark.parametrize("loss", [dice_loss, mask_bce])
def test_a_batch_is_the_mean_of_its_samples(loss):
    logits, masks = case()
    masks[0, :5] = 255  # samples with different numbers of valid pixels weigh the same
    each = [loss(logits[b : b + 1], masks[b : b + 1]).item() for b in range(3)]
    assert loss(logits, masks).item() == pytest.approx(np.mean(each), rel=1e-6)


@pytest.mark.parametrize("loss", [dice_loss, mask_bce])
def test_nothing_valid_is_finite(loss):
    masks = torch.full((1, 3, 3), 255, dtype=torch.uint8)
    assert math.isfinite(loss(torch.randn(1, 3, 3), masks).item())
