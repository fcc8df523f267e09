"""Comparison with numbers of the authors' code: ResNet-50 at 473, their weights and inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from authors_numbers import picture, region

import fssbench
from fssbench.data.geometry import Geometry
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench_hdmnet.checkpoint import official_names
from fssbench_hdmnet.ensemble import gram
from fssbench_hdmnet.stages import stages

SIZE = 473
FEATURES, OUTPUTS = 1e-5, 5e-5


def grown(shape, by):
    """A region with `by` pixels more on every side."""
    kind, *n = shape
    if kind == "disc":
        return region((kind, n[0], n[1], n[2] + by), SIZE)
    return region((kind, n[0] - by, n[1] + by, n[2] - by, n[3] + by), SIZE)


def ringed(shape, ring):
    """A mask whose object lies in a ring of 255."""
    inside = region(shape, SIZE)
    return torch.where((grown(shape, ring) == 1) & (inside == 0), 255, inside).to(torch.uint8)


@pytest.fixture(scope="module")
def episode(golden, imported):
    """The authors' numbers, the predictor, all outputs and the prediction of the 1-shot run."""
    numbers = golden("1shot")
    run = numbers.run
    predictor = fssbench.Predictor(checkpoint=imported(run["fg_bias_offset"]), device="cpu")
    images = picture(run["support_seed"], (1, run["shot"], 3, SIZE, SIZE))[0]
    masks = torch.stack([ringed(shape, run["ring"]) for shape in run["support_shapes"]])
    predictor.set_support(images, masks)
    query = picture(run["query_seed"], (1, 3, SIZE, SIZE))[0]
    (features,) = predictor.pipeline.encode(query[None])
    prepared = predictor.pipeline.prepare_query(features)
    with torch.inference_mode():
        outputs = predictor.pipeline.matcher.outputs([prepared], predictor._support)
    return numbers, predictor, features, outputs, predictor.predict(query)


def flips_allowed(numbers, tolerance):
    """Pixels so near the border that rounding may flip them."""
    return int(numbers.arrays["margin_count_below"][(1e-5, 1e-4, 1e-3).index(tolerance)])


def test_features(episode):
    numbers, _, features, _, _ = episode
    assert list(features) == ["layer2", "layer3", "layer4"]
    for position, maps in enumerate(features.values(), start=2):
        expected = numbers.arrays["query_feat__first8"][position]
        scale = numbers.arrays["query_feat__stats"][position][3]
        assert np.abs(maps[0, 0, :8].numpy() - expected).max() <= FEATURES * scale
        assert abs(maps.abs().max().item() - scale) <= FEATURES * scale


def test_priors_and_correlation_maps(episode):
    numbers, _, _, outputs, _ = episode
    numbers.near("similarity", outputs.priors, OUTPUTS)
    assert [maps.shape[-1] for maps in outputs.correlations] == [60, 30, 15]
    for maps in outputs.correlations:
        numbers.near(f"weights_{maps.shape[-1]}", maps, OUTPUTS)


def test_outputs(episode):
    numbers, _, _, outputs, _ = episode
    numbers.near("meta_out_lowres", outputs.meta, OUTPUTS)
    numbers.near("base_out_lowres", outputs.base, OUTPUTS)
    for name in ("final", "meta", "base"):
        whole = torch.nn.functional.interpolate(
            getattr(outputs, name), (SIZE, SIZE), mode="bilinear", align_corners=True
        )
        numbers.near(f"{name}_out", whole, OUTPUTS)


def test_logits_and_masks(episode):
    numbers, _, _, _, prediction = episode
    assert prediction.logits.shape == (SIZE, SIZE)
    channels = numbers.arrays["final_out__s4"][0]
    deviation = np.abs(prediction.logits[::4, ::4].numpy() - (channels[1] - channels[0])).max()
    assert deviation <= OUTPUTS * numbers.arrays["final_out__stats"][3]
    allowed = flips_allowed(numbers, 1e-4)
    assert (prediction.mask != numbers.bits("pred")).sum() <= allowed
    original = Geometry(SIZE).restore(prediction.logits, 375, 500) > 0
    assert (original != numbers.bits("pred_org")).sum() <= allowed


def test_meta_and_base_masks(episode):
    numbers, predictor, _, outputs, _ = episode
    meta = predictor.pipeline.matcher.margin(outputs.meta, SIZE)[0] > 0
    assert (meta != numbers.bits("pred_meta")).sum() <= flips_allowed(numbers, 1e-3)
    base = torch.nn.functional.interpolate(
        outputs.base, (SIZE, SIZE), mode="bilinear", align_corners=True
    ).argmax(1)
    histogram = torch.bincount(base.flatten(), minlength=16).numpy()
    assert np.abs(histogram - numbers.arrays["pred_base__hist"]).sum() <= 20


def test_scene_difference(episode):
    numbers, predictor, features, _, _ = episode
    ensemble = predictor.pipeline.matcher.ensemble
    difference = ensemble.difference(gram(features["layer2"][None]), predictor._support.grams)
    np.testing.assert_allclose(difference.flatten().numpy(), numbers.arrays["est_val"], rtol=1e-5)


@pytest.mark.slow
def test_training_step(golden, imported):
    numbers = golden("1shot_train")
    run, arrays = numbers.run, numbers.arrays
    path = imported(run["fg_bias_offset"])
    encoder = fssbench.backbone("resnet50-psp", path)
    matcher = fssbench.matcher("hdmnet", encoder)
    read_checkpoint(path).load_into(matcher)
    stage = next(stage for stage in stages(matcher) if stage.name == "meta")
    stage.training_mode(matcher)
    off = [m for m in matcher.modules() if isinstance(m, torch.nn.Dropout | torch.nn.Dropout2d)]
    for module in off:
        module.p = 0.0

    queries = torch.cat([picture(seed, (1, 3, SIZE, SIZE)) for seed in run["query_seeds"]])
    supports = torch.cat(
        [picture(seed, (1, run["shot"], 3, SIZE, SIZE)) for seed in run["support_seeds"]]
    )
    support_masks = torch.stack(
        [torch.stack([ringed(s, run["ring"]) for s in shapes]) for shapes in run["support_shapes"]]
    )
    query_masks = torch.stack([ringed(shape, run["ring"]) for shape in run["query_shapes"]])
    labels = torch.zeros_like(query_masks)
    labels[:, region(run["other_base_rect"], SIZE) == 1] = run["other_base_label"]
    for label, mask, channel in zip(labels, query_masks, run["cat_idx"], strict=True):
        label[mask == 1] = channel + 1
        label[mask == 255] = 255
    hidden = torch.where((support_masks == 1)[:, :, None], supports, encoder.mean.view(3, 1, 1))
    with torch.no_grad():
        names = matcher.request().layers
        query = encoder(queries, names)
        support = encoder(hidden.flatten(0, 1), names)
    batch = fssbench.EpisodeBatch(
        class_ids=torch.tensor(run["cat_idx"]),
        query=query,
        support={n: maps.unflatten(0, supports.shape[:2]) for n, maps in support.items()},
        query_masks=query_masks,
        support_masks=support_masks,
        query_images=queries,
        support_images=supports,
        classes=tuple(range(15)),
        query_labels=labels,
    )
    losses = stage.losses(matcher, batch)
    found = {name: loss.item() for name, loss in losses.items()}
    assert found["final"] == pytest.approx(arrays["ce_final"].item(), rel=1e-5)
    assert found["meta"] == pytest.approx(arrays["ce_meta"].item(), rel=1e-5)
    coarse_to_fine = [3 * found[f"distillation{n}"] for n in (3, 2, 1)]
    assert coarse_to_fine == pytest.approx(
        arrays["distil_terms_coarse_to_fine"].tolist(), rel=1e-4, abs=1e-7
    )
    sums = [
        found["final"] + found["meta"],
        sum(found[f"distillation{n}"] for n in (1, 2, 3)),
        found["base"],
        sum(found.values()),
    ]
    for mine, theirs in zip(sums, arrays["losses"].tolist(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)

    sum(losses.values()).backward()
    theirs = {own: name for name, own in official_names(matcher).items()}
    norms = {
        theirs[name]: parameter.grad.norm().item()
        for name, parameter in matcher.named_parameters()
        if parameter.grad is not None
    }
    trained = {
        id(parameter) for group in stage.parameters(matcher, None) for parameter in group.parameters
    }
    expected = dict(zip(arrays["grad_names"].tolist(), arrays["grad_norms"].tolist(), strict=True))
    assert set(norms) == set(expected)
    assert {theirs[n] for n, p in matcher.named_parameters() if id(p) in trained} == set(expected)
    largest = max(expected.values())
    for name, norm in expected.items():
        assert abs(norms[name] - norm) <= 1e-3 * max(norm, 1e-6 * largest), name
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    assert total == pytest.approx(arrays["grad_norm_total"].item(), rel=1e-3)
