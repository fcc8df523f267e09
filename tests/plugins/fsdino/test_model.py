"""The method and its options."""

from __future__ import annotations

import pytest
import torch

import fssbench
from fssbench import BackboneInfo, EpisodeBatch, FssbenchError, LayerInfo, embed_episodes
from fssbench.inference.cost import flops_per_episode, learnable_parameters
from fssbench.inference.pipeline import Pipeline
from fssbench.nn import together
from fssbench_fsdino.stages import stages

SIZE = 40
INFO = BackboneInfo(
    name="little-vit",
    layers={**{f"blocks.{n}": LayerInfo(12, 8) for n in range(8)}, "norm": LayerInfo(12, 8)},
    image_size=SIZE,
    multiple=8,
)
SMALL = {
    "width": 32, "adapter_width": 16, "adapter_inner": 16, "correlation_width": 16,
    "correlation_channels": (4, 4, 4),
}  # fmt: skip
CHOICES = [
    {},
    {"prompts": "initial"},
    {"prompts": "none"},
    {"correlation": "prototype"},
    {"correlation": "prototype", "prompts": "initial"},
    {"correlation": "prototype", "prompts": "none"},
    {"volume": "cosine"},
    {"support": "foreground"},
    {"prior": "probability"},
    {"adapter": "trained"},
]


def make(**options):
    torch.manual_seed(0)
    return fssbench.matcher("fsdino", INFO, **{**SMALL, **options})


def features(*batch, seed=0, grid=SIZE // 8):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*batch, 12, grid, grid, generator=generator)
        for name in ("blocks.1", "norm")
    }


def masks_of(batch, shots):
    masks = torch.zeros(batch, shots, SIZE, SIZE, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 8 * b : 8 * b + 16, 8 : 24 + 8 * k] = 1
    return masks


def part(maps, *index):
    return {name: each[index] for name, each in maps.items()}


@torch.no_grad()
def run(matcher, query, support, masks):
    return matcher(query, support, masks)


def count(module):
    return sum(p.numel() for p in module.parameters())


# --- sizes ----------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_paper():
    full = fssbench.matcher("fsdino", "dinov2-b")
    assert full.request().layers == ("blocks.2", "norm")
    assert full.request().size == 518
    assert 1_000_000 <= count(full.adapter) <= 1_300_000
    assert count(full.decoder) == 4_058_340
    assert 3_500_000 <= count(full.correlation) <= 4_500_000
    compact = fssbench.matcher("fsdino", "dinov2-b", correlation="prototype")
    assert 5_000_000 <= count(compact) <= 5_500_000
    assert count(full) - count(compact) == count(full.correlation)


@pytest.mark.parametrize(
    ("backbone", "layer"),
    [("dinov2-s", "blocks.1"), ("dinov2-b", "blocks.2"), ("dinov2-l", "blocks.3")],
)
def test_the_adapter_reads_the_papers_blocks(backbone, layer):
    assert fssbench.matcher("fsdino", backbone, **SMALL).layer == layer


@pytest.mark.parametrize(("size", "grid"), [(160, 20), (200, 25)])
def test_other_sizes(size, grid):
    matcher = fssbench.matcher("fsdino", "tiny-vit", size=size, **SMALL)
    maps = {n: torch.randn(1, 128, grid, grid) for n in matcher.request().layers}
    support = {n: m[:, None] for n, m in maps.items()}
    masks = torch.ones(1, 1, size, size, dtype=torch.uint8)
    assert run(matcher, maps, support, masks).shape == (1, 4 * grid, 4 * grid)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 41}, "give a multiple of 8"),
        ({"layer": "blocks.9"}, "has no layer 'blocks.9'"),
        ({"width": 20}, "multiple of 16"),
        ({"correlation_channels": (4, 4)}, "three numbers"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(FssbenchError, match=message):
        make(**options)


def test_other_encoders_are_refused_by_name():
    with pytest.raises(FssbenchError, match="dinov2-b"):
        fssbench.matcher("fsdino", "resnet50")


# --- the method -----------------------------------------------------------------------------------


def test_logits_cover_the_input_at_four_times_the_grid():
    logits = run(make(), features(2), features(2, 3, seed=1), masks_of(2, 3))
    assert logits.shape == (2, 20, 20)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_episodes_of_a_batch_do_not_mix(options):
    matcher = make(**options)
    query, support, masks = features(3), features(3, 2, seed=1), masks_of(3, 2)
    together = run(matcher, query, support, masks)
    for b in range(3):
        one = slice(b, b + 1)
        alone = run(matcher, part(query, one), part(support, one), masks[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_shots_have_no_order_and_repeating_one_changes_nothing():
    matcher = make()
    query, support, masks = features(1), features(1, 3, seed=1), masks_of(1, 3)
    turned = [2, 0, 1]
    torch.testing.assert_close(
        run(matcher, query, support, masks),
        run(matcher, query, part(support, slice(None), turned), masks[:, turned]),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    torch.testing.assert_close(
        run(matcher, query, part(support, slice(None), slice(0, 1)), masks[:, :1]),
        run(matcher, query, part(support, slice(None), [0, 0]), masks[:, [0, 0]]),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_ignored_support_pixels_are_background():
    matcher = make()
    query, support, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    ignored = torch.where(masks == 0, 255, masks).to(torch.uint8)
    expected = run(matcher, query, support, masks)
    assert torch.equal(run(matcher, query, support, ignored), expected)


def test_the_defaults_are_equation_3():
    """The plain product with every position of the support, foreground or not."""
    matcher = make()
    query, support, masks = features(1), features(1, 2, seed=1), masks_of(1, 2)
    prepared = together(matcher.prepare_query(query))
    volumes = matcher._volumes(prepared, embed_episodes(matcher, support, masks))
    expected = torch.einsum("cij,kcmn->kijmn", query["norm"][0], support["norm"][0])
    torch.testing.assert_close(volumes[0], expected, rtol=1e-4, atol=1e-4)


def test_the_background_of_the_support_has_no_effect():
    query, support, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    outside = (masks == 0)[:, :, None, ::8, ::8]  # the mask fills whole cells
    changed = {n: torch.where(outside, 7 * m.flip(-1), m) for n, m in support.items()}
    for options, same in (({}, False), ({"support": "foreground"}, True)):
        matcher = make(**options)
        found = [run(matcher, query, each, masks) for each in (support, changed)]
        assert torch.allclose(*found, atol=1e-5) == same


def test_prior_and_final_mask_are_separate_outputs():
    query, support, masks = features(2), features(2, 1, seed=1), masks_of(2, 1)
    for options in ({}, {"correlation": "prototype"}):
        matcher = make(**options)
        with torch.no_grad():
            found = matcher.masks(
                together(matcher.prepare_query(query)), embed_episodes(matcher, support, masks)
            )
        assert found.final.shape == (2, 20, 20)
        assert (found.prior is None) == bool(options)
        if found.prior is not None:
            assert found.prior.shape == (2, 20, 20)


# --- training -------------------------------------------------------------------------------------


def batch_of(batch, shots, grid=SIZE // 8):
    masks = masks_of(batch, 1)[:, 0]
    masks[:, -2:] = 255
    return EpisodeBatch(
        class_ids=torch.zeros(batch, dtype=torch.int64),
        query=features(batch),
        support=features(batch, shots, seed=1),
        query_masks=masks,
        support_masks=masks_of(batch, shots),
        query_images=torch.zeros(batch, 3, SIZE, SIZE),
        support_images=torch.zeros(batch, shots, 3, SIZE, SIZE),
    )


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_every_ablation_trains_and_segments(options):
    matcher = make(**options)
    stage = stages(matcher)[-1]
    groups = {g.name: list(g.parameters) for g in stage.parameters(matcher, None)}
    assert ("adapter" in groups) == (options.get("adapter") == "trained")
    assert ("prompts" in groups) == (
        "prompts" not in options or options.get("correlation") != "prototype"
    )
    trained = [p for group in groups.values() for p in group]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    stage.training_mode(matcher)
    batch = batch_of(3, 2)
    totals = []
    for _ in range(12):
        losses = stage.losses(matcher, batch)
        prior = options.get("correlation") != "prototype"
        assert set(losses) == {"dice", "bce"} | ({"prior_dice", "prior_bce"} if prior else set())
        total = sum(losses.values())
        optimiser.zero_grad()
        total.backward()
        assert all(p.grad is not None for p in trained)  # data parallelism needs every one
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
    logits = run(matcher.eval(), batch.query, batch.support, batch.support_masks)
    assert torch.isfinite(logits).all()


def test_frozen_modules_stay_frozen():
    matcher = make()
    stage = stages(matcher)[-1]
    trained = {id(p) for g in stage.parameters(matcher, None) for p in g.parameters}
    frozen = {name for name, p in matcher.named_parameters() if id(p) not in trained}
    assert {name.partition(".")[0] for name in frozen} == {"adapter", "decoder"}
    assert all(
        name.startswith(("adapter.", "decoder.iou_prediction", "decoder.output_hyper"))
        for name in frozen
    )
    assert {name for name, _ in matcher.named_parameters() if name.startswith("adapter.")} <= frozen


def test_losses_are_means_over_episodes():
    matcher = make()
    stage = stages(matcher)[-1]
    batch = batch_of(2, 1)
    with torch.no_grad():
        whole = stage.losses(matcher, batch)
        halves = []
        for b in range(2):
            one = slice(b, b + 1)
            halves.append(
                stage.losses(
                    matcher,
                    EpisodeBatch(
                        class_ids=batch.class_ids[one],
                        query=part(batch.query, one),
                        support=part(batch.support, one),
                        query_masks=batch.query_masks[one],
                        support_masks=batch.support_masks[one],
                        query_images=batch.query_images[one],
                        support_images=batch.support_images[one],
                    ),
                )
            )
    for name, value in whole.items():
        mean = sum(half[name].item() for half in halves) / 2
        assert value.item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("prompts", ["semantic", "initial", "none"])
def test_operations_are_counted_whatever_the_prompts(prompts):
    backbone = fssbench.backbone("tiny-vit", "random")
    matcher = fssbench.matcher("fsdino", backbone.info, **{**SMALL, "prompts": prompts})
    pipeline = Pipeline(matcher, backbone, device=torch.device("cpu"))
    learnable = learnable_parameters(pipeline)
    assert flops_per_episode(pipeline, 5) > flops_per_episode(pipeline, 1) > 1e8
    assert learnable_parameters(pipeline) == learnable
