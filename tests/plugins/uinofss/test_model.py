"""The method, its variants, options and memory."""

from __future__ import annotations

import importlib

import attrs
import pytest
import torch

import fssbench
from fssbench import (
    BackboneInfo,
    BackboneSpec,
    EpisodeBatch,
    FssbenchError,
    LayerInfo,
    embed_episodes,
)
from fssbench.build import parameters
from fssbench.nn import mask_bce, together
from fssbench.nn.flops import flop_counter
from fssbench.registry import registry
from fssbench_fsdino.losses import dice_loss
from fssbench_uinofss import hypercorrelation
from fssbench_uinofss import model as module
from fssbench_uinofss.hypercorrelation import HyperCorrelation
from fssbench_uinofss.stages import stages
from fssbench_uinofss.vss import VssBlock

vss = importlib.import_module("fssbench_uinofss.vss")
SIZE = 40
INFO = BackboneInfo(
    name="little-vit",
    layers={
        **{f"blocks.{n}": LayerInfo(12, 8, norm=True) for n in range(8)},
        "norm": LayerInfo(12, 8),
    },
    image_size=SIZE,
    multiple=8,
)
SMALL = {
    "width": 32, "adapter_width": 16, "adapter_inner": 16, "channels": 4, "query_block": 2,
    "support_block": 3, "decode": (8, 4, 4),
}  # fmt: skip
DINOV2 = {"dinov2-s": 22_056_576, "dinov2-b": 86_580_480, "dinov2-l": 304_368_640}
CHOICES = [
    {},
    {"hypercorrelation": "cp4d"},
    {"hypercorrelation": "none"},
    {"contrast": False},
    {"hypercorrelation": "none", "contrast": False},
    {"dense": "prototype"},
    {"dense": "prototype", "prompts": "initial"},
    {"prompts": "none"},
    {"pool": "foreground"},
    {"prior": "logits"},
    {"query_places": 3, "support_places": 2},
    {"volume_layers": 1},
    {"states": 2},
    {"adapter": "trained"},
    {"decoder": "frozen"},
]


def make(name="uinofss", **options):
    torch.manual_seed(0)
    return fssbench.matcher(name, INFO, **{**SMALL, **options})


def features(matcher, *batch, seed=0, grid=SIZE // 8, channels=12):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*batch, channels, grid, grid, generator=generator)
        for name in matcher.request().layers
    }


def masks_of(batch, shots):
    masks = torch.zeros(batch, shots, SIZE, SIZE, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 8 * b : 8 * b + 16, 8 : 24 + 8 * k] = 1
    return masks


def part(maps, *index):
    return {name: each[index] for name, each in maps.items()}


def run(matcher, query, support, masks):
    return matcher(query, support, masks)


def count(module_):
    return sum(p.numel() for p in module_.parameters())


def trained(matcher):
    *_, meta = stages(matcher)
    groups = meta.parameters(matcher, None)
    return {group.name: sum(p.numel() for p in group.parameters) for group in groups}


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "trains", "within", "total"),
    [
        ("uinofss", 4.6e6, 0.1e6, 92.5e6),
        ("uinofss-comp", 4.1e6, 0.05e6, 92.0e6),
        ("uinofss-comp-frozen", 0.07e6, 0.01e6, 92.0e6),
    ],
)
def test_parameters_are_those_of_table_4(name, trains, within, total):
    matcher = fssbench.matcher(name, "dinov2-b")
    assert abs(sum(trained(matcher).values()) - trains) <= within
    assert abs(count(matcher) + DINOV2["dinov2-b"] - total) <= 0.2e6


def test_parameters_are_those_of_section_v_c3():
    matcher = fssbench.matcher("uinofss", "dinov2-b")
    assert abs(count(matcher.hypercorrelation) - 0.18e6) <= 0.03e6
    branch = count(matcher.hypercorrelation) + count(matcher.prior)
    assert abs(branch - 0.5e6) <= 0.08e6
    assert count(matcher.decoder) == 4_058_340
    compact = fssbench.matcher("uinofss-comp", "dinov2-b")
    assert count(matcher) - count(compact) == branch


@pytest.mark.parametrize(
    ("backbone", "layers"),
    [
        ("dinov2-s", ("blocks.1", "blocks.9:norm", "blocks.10:norm", "norm")),
        ("dinov2-b", ("blocks.2", "blocks.9:norm", "blocks.10:norm", "norm")),
        ("dinov2-l", ("blocks.3", "blocks.21:norm", "blocks.22:norm", "norm")),
    ],
)
def test_layers_of_the_papers_encoders(backbone, layers):
    request = fssbench.matcher("uinofss", backbone, **SMALL).request()
    assert request.layers == layers
    assert request.size == 518
    assert fssbench.matcher("uinofss-comp", backbone, **SMALL).request().layers == (
        layers[0], "norm",
    )  # fmt: skip


def test_layers_without_the_final_norm():
    options = {**SMALL, "norm": "last"}
    request = fssbench.matcher("uinofss", "dinov2-b", **options).request()
    assert request.layers == ("blocks.2", "blocks.9", "blocks.10", "norm")
    plain = attrs.evolve(INFO, layers={n: LayerInfo(12, 8) for n in INFO.layers})
    fssbench.matcher("uinofss", plain, **options)
    with pytest.raises(FssbenchError, match="give -o norm=last"):
        fssbench.matcher("uinofss", plain, **SMALL)


@pytest.mark.parametrize("name", DINOV2)
def test_sizes_of_the_papers_encoders(name):
    spec = registry().get(BackboneSpec, name)
    assert parameters(spec) == pytest.approx(DINOV2[name], abs=2_000)


# --- what it computes -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_every_option_segments_and_trains(options):
    matcher = make(**options).train()
    query, support = features(matcher, 2), features(matcher, 2, 2, seed=1)
    logits = run(matcher, query, support, masks_of(2, 2))
    assert logits.shape == (2, 4 * SIZE // 8, 4 * SIZE // 8)
    *_, meta = stages(matcher)
    groups = {group.name: group.parameters for group in meta.parameters(matcher, None)}
    batch = EpisodeBatch(
        class_ids=torch.zeros(2, dtype=torch.long),
        query=query,
        support=support,
        query_masks=masks_of(2, 1)[:, 0],
        support_masks=masks_of(2, 2),
        query_images=torch.zeros(2, 3, SIZE, SIZE),
        support_images=torch.zeros(2, 2, 3, SIZE, SIZE),
    )
    losses = meta.losses(matcher, batch)
    assert set(losses) == (
        {"dice", "bce", "prior_dice", "prior_bce"} if matcher.prior else {"dice", "bce"}
    )
    sum(losses.values()).backward()
    for name, group in groups.items():
        for parameter in group:
            assert parameter.grad is not None
            assert torch.isfinite(parameter.grad).all()
            assert name != "idle" or not parameter.grad.any()
        assert name == "idle" or any(p.grad.any() for p in group), name


def test_losses_are_equations_12_to_14():
    matcher = make().eval()
    query, support = features(matcher, 2), features(matcher, 2, 1, seed=1)
    truth = masks_of(2, 1)[:, 0]
    truth[:, :2] = 255
    batch = EpisodeBatch(
        class_ids=torch.zeros(2), query=query, support=support, query_masks=truth,
        support_masks=masks_of(2, 1), query_images=torch.zeros(0), support_images=torch.zeros(0),
    )  # fmt: skip
    *_, meta = stages(matcher)
    losses = meta.losses(matcher, batch)
    masks = matcher.masks(
        together(matcher.prepare_query(query)), embed_episodes(matcher, support, masks_of(2, 1))
    )
    for prefix, logits in (("", masks.final), ("prior_", masks.prior)):
        full = torch.nn.functional.interpolate(
            logits[:, None], (SIZE, SIZE), mode="bilinear", align_corners=True
        )[:, 0]
        torch.testing.assert_close(losses[f"{prefix}dice"], dice_loss(full, truth))
        torch.testing.assert_close(losses[f"{prefix}bce"], mask_bce(full, truth))


@pytest.mark.parametrize("options", [{}, {"dense": "prototype"}, {"hypercorrelation": "cp4d"}])
@torch.no_grad()
def test_samples_of_a_batch_are_independent(options):
    matcher = make(**options).eval()
    query, support = features(matcher, 3), features(matcher, 3, 2, seed=1)
    whole = run(matcher, query, support, masks_of(3, 2))
    for n in range(3):
        one = slice(n, n + 1)
        alone = run(matcher, part(query, one), part(support, one), masks_of(3, 2)[one])
        torch.testing.assert_close(whole[one], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"dense": "prototype"}])
@torch.no_grad()
def test_the_order_of_shots_does_not_matter_and_a_repeated_shot_is_one(options):
    matcher = make(**options).eval()
    query, support = features(matcher, 1), features(matcher, 1, 3, seed=1)
    masks = masks_of(1, 3)
    order = [2, 0, 1]
    whole = run(matcher, query, support, masks)
    turned = run(matcher, query, part(support, slice(None), order), masks[:, order])
    torch.testing.assert_close(whole, turned, rtol=1e-4, atol=1e-5)
    once = run(matcher, query, part(support, slice(None), [0]), masks[:, [0]])
    thrice = run(matcher, query, part(support, slice(None), [0, 0, 0]), masks[:, [0, 0, 0]])
    torch.testing.assert_close(once, thrice, rtol=1e-4, atol=1e-5)


def test_pairs_processed_one_by_one_give_the_same_logits_and_gradients(monkeypatch):
    gradients, answers, seen = [], [], []
    for at_once in (1 << 24, 1):
        monkeypatch.setattr(module, "_AT_ONCE", at_once)
        matcher = make().train()
        original = matcher.hypercorrelation.forward

        def counted(volume, original=original):
            seen.append(len(volume))
            return original(volume)

        monkeypatch.setattr(matcher.hypercorrelation, "forward", counted)
        query, support = features(matcher, 2), features(matcher, 2, 2, seed=1)
        logits = run(matcher, query, support, masks_of(2, 2))
        logits.square().mean().backward()
        answers.append(logits.detach())
        gradients.append([p.grad for p in matcher.hypercorrelation.parameters()])
    assert seen == [4, *[1] * 8]  # and once more each in the backward pass
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-5)
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_patches_processed_in_portions_give_the_same_result(monkeypatch):
    torch.manual_seed(0)
    block = VssBlock(8)
    patches = torch.randn(10, 4, 6, 8)
    whole = block(patches)
    whole.square().mean().backward()
    expected = [p.grad.clone() for p in block.parameters()]
    monkeypatch.setitem(vss._AT_ONCE, "cpu", 3 * 4 * 6 * 8)
    for remembered in (1 << 23, 1):
        monkeypatch.setitem(vss._STORED, "cpu", remembered)
        block.zero_grad()
        some = block(patches)
        torch.testing.assert_close(some, whole, rtol=1e-5, atol=1e-6)
        some.square().mean().backward()
        for found, before in zip(block.parameters(), expected, strict=True):
            torch.testing.assert_close(found.grad, before, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(block(patches), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("states", [1, 3])
def test_scans_in_place_equal_scans_of_sequences(states):
    torch.manual_seed(0)
    scan = vss.CrossScan(32, states=states)
    patches = torch.randn(5, 4, 6, 32)
    by_sequences = scan(patches).detach()
    with torch.no_grad():
        in_place = scan(patches)
    torch.testing.assert_close(in_place, by_sequences, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_the_norm_of_a_large_volume_is_as_exact_as_torchs():
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(4, 8)
    norm.weight.uniform_(), norm.bias.uniform_()
    volume = 10 + torch.randn(2, 9, 9, 9, 9, 8).permute(0, 5, 1, 2, 3, 4)
    expected = norm.double()(volume.double())
    found = hypercorrelation._normalised(volume, norm.float())
    assert (found - expected).abs().max() <= 1e-5


@torch.no_grad()
def test_under_autocast_it_stays_finite():
    matcher = make().eval()
    query, support = features(matcher, 1), features(matcher, 1, 1, seed=1)
    full = run(matcher, query, support, masks_of(1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        half = run(matcher, query, support, masks_of(1, 1))
    assert torch.isfinite(half).all()
    assert (half.float() - full).abs().max() <= 0.1 * full.abs().max()


@torch.no_grad()
def test_an_empty_mask_gives_numbers():
    for options in ({}, {"dense": "prototype"}, {"pool": "foreground"}):
        matcher = make(**options).eval()
        query, support = features(matcher, 1), features(matcher, 1, 1, seed=1)
        masks = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
        assert torch.isfinite(run(matcher, query, support, masks)).all()


@torch.no_grad()
def test_operations_of_a_scan_are_those_of_its_formula():
    """No product with the zeros of a block-diagonal matrix, and the recurrence itself counts."""
    tokens, channels, states = 2 * 4 * 5, 32, 3
    scan = vss.CrossScan(channels, states=states).requires_grad_(False)
    with flop_counter() as counted:
        scan(torch.randn(2, 4, 5, channels))
    chosen = scan.rank * 2 + 2 * states  # each token's step, to and from its rank, B and C
    products = 2 * channels + 9 + 4 * chosen
    recurrence = 4 * (9 * states + 1)
    assert counted.get_total_flops() == tokens * channels * (2 * products + recurrence)


def test_mamba_without_its_scans_is_cp4d():
    mamba, convolutions = (HyperCorrelation(3, 8, blocks=blocks) for blocks in ((2, 2), None))
    assert [tuple(p.shape) for b in mamba for p in b.local.parameters()] == [
        tuple(p.shape) for p in convolutions.parameters()
    ]


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 41}, "give a multiple of 8"),
        ({"layer": "blocks.9"}, "has no layer 'blocks.9'"),
        ({"width": 20}, "multiple of 16"),
        ({"channels": 6}, "multiple of 4"),
        ({"decode": (4, 4)}, "three numbers"),
        ({"query_block": 0}, "'query_block' must be >= 1"),
        ({"support_places": 0}, "'support_places' must be >= 1"),
        ({"volume_layers": 9}, "has 8 blocks; ask for fewer"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(FssbenchError, match=message):
        make(**options)


def test_variants_differ_in_their_defaults_alone():
    full, comp, frozen = (
        fssbench.matcher(name, INFO, **SMALL).config
        for name in ("uinofss", "uinofss-comp", "uino-fss-comp-frozen")
    )
    assert (full.dense, full.decoder) == ("volume", "trained")
    assert (comp.dense, comp.decoder) == ("prototype", "trained")
    assert (frozen.dense, frozen.decoder) == ("prototype", "frozen")
    assert make("uinofss", dense="prototype").state_dict().keys() == (
        make("uinofss-comp").state_dict().keys()
    )
