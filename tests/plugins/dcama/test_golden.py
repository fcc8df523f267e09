"""Comparison with numbers of the authors' code: ResNet-50 at 384, their weights and inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from authors_numbers import picture, region

import fssbench
from fssbench.data.geometry import Geometry
from fssbench.metrics.iou import IoU
from fssbench_dcama.ablations import aggregated_masks
from fssbench_dcama.stages import stages

SIZE = 384
FEATURES, COARSE, LOGITS = 1e-5, 1e-5, 5e-5


@pytest.fixture(scope="module", params=["1shot", "5shot"])
def episode(request, golden, imported):
    """The authors' numbers, our prediction, and the predictor that made it."""
    numbers = golden(request.param)
    run = numbers.run
    predictor = fssbench.Predictor(checkpoint=imported(run["fg_bias_offset"]), device="cpu")
    images = picture(run["support_seed"], (1, run["nshot"], 3, SIZE, SIZE))[0]
    masks = torch.stack([region(shape, SIZE) for shape in run["support_shapes"]])
    predictor.set_support(images, masks)
    query = picture(run["query_seed"], (1, 3, SIZE, SIZE))[0]
    return numbers, predictor, query, predictor.predict(query)


def flips_allowed(numbers, tolerance):
    """Pixels so near the border that rounding may flip them."""
    return int(numbers.arrays["margin_count_below"][(1e-4, 1e-3, 1e-2).index(tolerance)])


def test_features(episode):
    numbers, predictor, query, _ = episode
    (features,) = predictor.pipeline.encode(query[None])
    names = list(features)
    assert len(names) == 14  # of 16 blocks; the mixer wants only the last one at a quarter
    positions = [2, *range(3, 16)]
    for name, position in zip(names, positions, strict=True):
        expected = numbers.arrays["query_feat__first8"][position]
        scale = numbers.arrays["query_feat__stats"][position][3]
        found = features[name][0, 0, :8].numpy()
        assert np.abs(found - expected).max() <= FEATURES * scale
        assert abs(features[name].abs().max().item() - scale) <= FEATURES * scale


def test_aggregated_masks_and_support_masks(episode):
    numbers, predictor, query, _ = episode
    (features,) = predictor.pipeline.encode(query[None])
    support = predictor._support
    with torch.inference_mode():
        masks = aggregated_masks(
            predictor.pipeline.matcher, [predictor.pipeline.prepare_query(features)], support
        )
    for stride, found in masks.items():
        numbers.near(f"coarse_1_{stride}", found[0], COARSE)
        side = SIZE // stride
        numbers.near(f"value_1_{stride}", support.values[stride].view(-1, side, side), COARSE)


def test_decoder(episode):
    numbers, predictor, query, _ = episode
    matcher = predictor.pipeline.matcher
    parts = {
        "dec_conv1": matcher.prepare["32"],
        "dec_conv2": matcher.prepare["16"],
        "dec_conv3": matcher.prepare["8"],
        "dec_conv4": matcher.integrate["16"],
        "dec_conv5": matcher.integrate["8"],
        "dec_mixer1": matcher.mixer[0][-1],
        "dec_mixer2": matcher.mixer[1],
    }
    seen = {}
    handles = [
        part.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.clone()}))
        for name, part in parts.items()
    ]
    predictor.predict(query)
    for handle in handles:
        handle.remove()
    for name in parts:
        numbers.near(name, seen[name], LOGITS)


def test_logits_and_masks(episode):
    numbers, _, _, prediction = episode
    assert prediction.logits.shape == (SIZE, SIZE)
    channels = numbers.arrays["logits__s4"][0]
    deviation = np.abs(prediction.logits[::4, ::4].numpy() - (channels[1] - channels[0])).max()
    assert deviation <= LOGITS * numbers.arrays["logits__stats"][3]
    flipped = (prediction.mask != numbers.bits("pred")).sum()
    assert flipped <= flips_allowed(numbers, 1e-3)
    original = Geometry(SIZE).restore(prediction.logits, 375, 500) > 0
    assert (original != numbers.bits("pred_org")).sum() <= flips_allowed(numbers, 1e-3)


def test_evaluation_counts(episode):
    numbers, _, _, prediction = episode
    kind, *numbers_of_shape = numbers.run["query_gt"]
    truth = region((kind, *numbers_of_shape), SIZE)
    grown = region((kind, *numbers_of_shape[:2], numbers_of_shape[2] + 4), SIZE)
    ignored = torch.where((grown == 1) & (truth == 0), 255, truth).to(torch.uint8)
    slack = flips_allowed(numbers, 1e-3)
    for target, name in ((truth, "eval_plain"), (ignored, "eval_ignore")):
        counts = IoU().measure(prediction.mask[None], target[None])
        expected = numbers.arrays[f"{name}_inter_union"]
        for row, what in enumerate(("intersection", "union")):
            for column, side in enumerate(("bg", "fg")):
                assert abs(counts[f"{what}_{side}"].item() - expected[row, column]) <= slack


def test_training_step(golden, imported, authors_weights):
    from fssbench.matchers.checkpoint import read_checkpoint
    from fssbench_dcama.checkpoint import official_names

    numbers = golden("trainstep")
    run, arrays = numbers.run, numbers.arrays
    path = imported(run["fg_bias_offset"])
    encoder = fssbench.backbone("resnet50", path)
    matcher = fssbench.matcher("dcama", encoder, dropout=0.0)
    read_checkpoint(path).load_into(matcher)
    matcher.train()
    (stage,) = stages(matcher)

    def stack(seeds):
        return torch.cat([picture(seed, (1, 3, SIZE, SIZE)) for seed in seeds])

    queries, supports = stack(run["query_seeds"]), stack(run["support_seeds"])
    layers = matcher.request().layers
    with torch.no_grad():
        query, support = encoder(queries, layers), encoder(supports, layers)
    batch = fssbench.EpisodeBatch(
        class_ids=torch.zeros(2, dtype=torch.long),
        query=query,
        support={name: maps[:, None] for name, maps in support.items()},
        query_masks=torch.stack([region(shape, SIZE) for shape in run["query_shapes"]]),
        support_masks=torch.stack([region(shape, SIZE) for shape in run["support_shapes"]])[
            :, None
        ],
        query_images=queries,
        support_images=supports[:, None],
    )
    optimiser = torch.optim.SGD(
        matcher.parameters(),
        lr=run["lr"],
        momentum=run["momentum"],
        weight_decay=run["weight_decay"],
        nesterov=run["nesterov"],
    )
    losses = stage.losses(matcher, batch)
    assert losses["bce"].item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    losses["bce"].backward()

    ours = official_names(matcher)
    parameters = dict(matcher.named_parameters())
    assert set(arrays["grad_names"]) == set(ours)
    total = float(arrays["grad_norm_total"])
    for name, norm in zip(arrays["grad_names"], arrays["grad_norms"], strict=True):
        found = parameters[ours[name]].grad.norm().item()
        # That of a key bias is zero but for rounding.
        assert found == pytest.approx(float(norm), rel=1e-3, abs=1e-6 * total), name

    optimiser.step()
    for name, expected in zip(
        arrays["ten_names"], arrays["ten_param_sums_after_step"], strict=True
    ):
        scale = parameters[ours[name]].detach().double().abs().sum().item()
        found = parameters[ours[name]].detach().double().sum().item()
        assert abs(found - expected) <= 1e-6 * scale, name
    with torch.no_grad():
        after = stage.losses(matcher, batch)["bce"].item()
    assert after == pytest.approx(float(arrays["loss_after_step"]), rel=1e-4)


def test_number_of_parameters():
    matcher = fssbench.matcher("dcama", "resnet50")
    assert sum(p.numel() for p in matcher.parameters() if p.requires_grad) == 14_215_394
