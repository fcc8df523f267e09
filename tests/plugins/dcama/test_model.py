"""The method and its options, on random features of a small backbone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

import fssbench
from fssbench import BackboneInfo, FssbenchError, LayerInfo, embed_episodes
from fssbench_dcama import ablations, attention
from fssbench_dcama.stages import stages

SIZE = 64
INFO = BackboneInfo(
    name="four-scales",
    layers={
        "a0": LayerInfo(8, 4),
        "a1": LayerInfo(8, 4),
        "b0": LayerInfo(16, 8, relu=True),
        "b1": LayerInfo(16, 8, relu=True),
        "c0": LayerInfo(24, 16),
        "c1": LayerInfo(32, 16),  # another width at the same scale, as in MobileNetV2
        "d0": LayerInfo(32, 32),
    },
    image_size=SIZE,
    multiple=32,
)


def make(**options):
    torch.manual_seed(0)
    matcher = fssbench.matcher("dcama", INFO, **options)
    for parameter in matcher.parameters():  # attention that tells pixels apart
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=2 / math.sqrt(parameter.shape[1]))
    return matcher


def features(matcher, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = matcher.request().size
    return {
        name: torch.randn(
            *batch,
            INFO.layer(name).channels,
            size // INFO.layer(name).stride,
            size // INFO.layer(name).stride,
            generator=generator,
        )
        for name in matcher.request().layers
    }


def masks_of(batch, shots, size=SIZE):
    masks = torch.zeros(batch, shots, size, size, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 8 * b + 4 * k : 8 * b + 4 * k + 24, 8 : 40 + 4 * k] = 1
    return masks


def run(matcher, query, support_features, masks):
    with torch.no_grad():
        return matcher(query, support_features, masks)


def aggregated(matcher, query, embedded):
    with torch.no_grad():
        return ablations.aggregated_masks(matcher, matcher.prepare_query(query), embedded)


def part(maps, *index):
    return {name: each[index] for name, each in maps.items()}


# --- the method -----------------------------------------------------------------------------------


def test_asks_for_every_block_before_its_last_relu():
    request = make().request()
    assert request.layers == ("a1", "b0:pre", "b1:pre", "c0", "c1", "d0")
    assert request.size == SIZE
    assert make(size=96).request().size == 96


def test_attention_is_equation_1(monkeypatch):
    torch.manual_seed(0)
    queries, keys, values = torch.randn(6, 10, 4), torch.randn(6, 15, 4), torch.rand(6, 15)
    expected = torch.einsum(
        "nqs,ns->nq", torch.softmax(torch.einsum("nqd,nsd->nqs", queries, keys), -1), values
    )
    for budget in (1, 20, 50, 200, 400, 1 << 20):
        monkeypatch.setattr(attention, "_WEIGHTS_CPU", budget)
        torch.testing.assert_close(attention.attend(queries, keys, values), expected)


def test_attention_in_pieces_has_the_same_gradients(monkeypatch):
    torch.manual_seed(0)
    module = attention.MaskAggregation(16, heads=4, pixels=64, dropout=0.0)
    query, other, values = torch.randn(2, 16, 8, 8), torch.randn(2, 3, 16, 8, 8), torch.rand(2, 192)
    weight = torch.randn(2, 8, 8)

    def gradients():
        module.zero_grad()
        masks = module.aggregate(module.queries(query), module.keys(other), values)
        (masks.view(weight.shape) * weight).sum().backward()
        return [p.grad.clone() for p in module.parameters()]

    whole = gradients()
    monkeypatch.setattr(attention, "_WEIGHTS_CPU", 500)
    in_pieces = gradients()
    monkeypatch.setattr(attention, "_STORED", 0)  # weights are computed again in the backward pass
    computed_again = gradients()
    for piece, again, expected in zip(in_pieces, computed_again, whole, strict=True):
        torch.testing.assert_close(piece, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(again, piece)


def test_positions_are_sines_and_cosines_within_each_shot():
    table = attention.sinusoids(50, 6)
    assert table[7, 0].item() == pytest.approx(math.sin(7), abs=1e-6)
    assert table[7, 3].item() == pytest.approx(math.cos(7 / 10000 ** (2 / 6)), abs=1e-6)
    module = attention.MaskAggregation(16, heads=4, pixels=64, dropout=0.0)
    same = torch.randn(1, 1, 16, 8, 8).expand(1, 2, -1, -1, -1)
    keys = module.keys(same)  # (1, heads, 2·64, 4)
    assert torch.equal(keys[:, :, :64], keys[:, :, 64:])
    assert not torch.allclose(keys[:, :, :1].expand_as(keys), keys)


def test_training_starts_with_one_metric_for_queries_and_keys():
    module = attention.MaskAggregation(16, heads=4, pixels=64, dropout=0.5)
    assert torch.equal(module.query.weight, module.key.weight)
    assert module.query.weight is not module.key.weight


def test_gain_sharpens_the_attention_that_training_starts_with():
    def masks(gain):
        torch.manual_seed(0)
        matcher = fssbench.matcher("dcama", INFO, gain=gain)
        embedded = embed_episodes(matcher, features(matcher, 1, 1, seed=1), masks_of(1, 1))
        return aggregated(matcher, features(matcher, 1), embedded)[8]

    assert masks(4.0).std() > 3 * masks(1.0).std() > 0


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_of_weights_has_its_rate_and_scale(rate):
    torch.manual_seed(0)
    weights = torch.full((7, 300, 301), 2.0, requires_grad=True)  # no multiple of four values
    dropped = attention._drop(weights, rate)
    zeros = dropped == 0
    bound = 5 * math.sqrt(rate * (1 - rate) / zeros.numel())
    assert abs(zeros.float().mean() - rate) < bound
    # 16 bits round the rate.
    assert torch.allclose(dropped[~zeros], torch.tensor(2 / (1 - rate)), rtol=1e-4)
    dropped.sum().backward()
    assert torch.equal(weights.grad, dropped.detach() / 2)
    for places in (zeros[:, 1:] & zeros[:, :-1], zeros[1:] & zeros[:-1]):  # independent
        assert abs(places.float().mean() - rate**2) < 5 * bound


def test_dropout_only_in_training():
    matcher = make()
    query, other, masks = features(matcher, 1), features(matcher, 1, 1, seed=1), masks_of(1, 1)
    assert torch.equal(run(matcher, query, other, masks), run(matcher, query, other, masks))
    matcher.train()
    assert not torch.equal(run(matcher, query, other, masks), run(matcher, query, other, masks))
    matcher = make(dropout=0.0)
    still = run(matcher, query, other, masks)
    assert torch.equal(still, run(matcher.train(), query, other, masks))


def test_logits_cover_the_input():
    matcher = make()
    logits = run(matcher, features(matcher, 2), features(matcher, 2, 3, seed=1), masks_of(2, 3))
    assert logits.shape == (2, SIZE, SIZE)
    assert logits.dtype == torch.float32


def test_aggregated_masks_are_weighted_means_of_the_support_mask():
    matcher = make()
    query, other = features(matcher, 1), features(matcher, 1, 2, seed=1)
    for value, masks in ((1.0, torch.ones(1, 2, SIZE, SIZE)), (0.0, torch.zeros(1, 2, SIZE, SIZE))):
        with torch.no_grad():
            found = ablations.aggregated_masks(
                matcher,
                matcher.prepare_query(query),
                embed_episodes(matcher, other, masks.to(torch.uint8)),
            )
        assert {s: tuple(m.shape) for s, m in found.items()} == {
            8: (1, 2, 8, 8), 16: (1, 2, 4, 4), 32: (1, 1, 2, 2),
        }  # fmt: skip
        for maps in found.values():
            torch.testing.assert_close(maps, torch.full_like(maps, value))


def test_panels_show_the_mean_of_the_aggregated_masks_of_each_scale():
    """Figure 4 (b); an ensemble of 1-shot predictions has no common masks."""
    matcher = make()
    query, other, masks = features(matcher, 2), features(matcher, 2, 2, seed=1), masks_of(2, 2)
    embedded = embed_episodes(matcher, other, masks)
    with torch.no_grad():
        shown = matcher.maps(matcher.prepare_query(query), embedded)
    expected = aggregated(matcher, query, embedded)
    assert list(shown) == ["masks at 1/8", "masks at 1/16", "masks at 1/32"]
    for found, each in zip(shown.values(), expected.values(), strict=True):
        torch.testing.assert_close(found, each.mean(1))
        assert 0 <= found.min() <= found.max() <= 1
    voting = make(shots="voting")
    embedded = embed_episodes(voting, other, masks)
    assert voting.maps(voting.prepare_query(query), embedded) == {}


def test_episodes_of_a_batch_do_not_mix():
    matcher = make()
    query, other, masks = features(matcher, 3), features(matcher, 3, 2, seed=1), masks_of(3, 2)
    for strategy in ("one-pass", "voting", "averaging", "hsnet", "scl"):
        matcher = make(shots=strategy)
        together = run(matcher, query, other, masks)
        for b in range(3):
            one = slice(b, b + 1)
            alone = run(matcher, part(query, one), part(other, one), masks[one])
            torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_shots_have_no_order_and_repeating_one_changes_nothing():
    matcher = make()
    query, other, masks = features(matcher, 1), features(matcher, 1, 3, seed=1), masks_of(1, 3)
    forward = run(matcher, query, other, masks)
    turned = [2, 0, 1]
    shuffled = run(matcher, query, part(other, slice(None), turned), masks[:, turned])
    torch.testing.assert_close(forward, shuffled, rtol=1e-4, atol=1e-5)
    once = run(matcher, query, part(other, slice(None), slice(0, 1)), masks[:, :1])
    thrice = run(matcher, query, part(other, slice(None), [0, 0, 0]), masks[:, [0, 0, 0]])
    torch.testing.assert_close(once, thrice, rtol=1e-4, atol=1e-5)


def test_ignored_support_pixels_are_background():
    matcher = make()
    query, other, masks = features(matcher, 1), features(matcher, 1, 1, seed=1), masks_of(1, 1)
    ignored = torch.where(masks == 0, 255, masks).to(torch.uint8)
    assert torch.equal(run(matcher, query, other, masks), run(matcher, query, other, ignored))


# --- ablations ------------------------------------------------------------------------------------


def test_background_off():
    query, masks = features(make(), 1), masks_of(1, 1)
    # Cells of a quarter are whole cells of all scales, so that borders are sharp.
    masks = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    masks[..., :32, :32] = 1
    first = features(make(), 1, 1, seed=1)
    second = {name: maps.clone() for name, maps in first.items()}
    for maps in second.values():
        maps[..., maps.shape[-1] // 2 + 1 :, :] += 5.0  # far away from the mask
    for background in (True, False):
        matcher = make(background=background)
        found = []
        for other in (first, second):
            with torch.no_grad():
                found.append(aggregated(matcher, query, embed_episodes(matcher, other, masks)))
        assert torch.equal(found[0][8], found[1][8]) is not background
        assert torch.equal(found[0][16], found[1][16]) is not background


@pytest.mark.parametrize("strides", [(8, 16, 32), (16, 32), (32,), (8, 32), (8,)])
def test_attention_scales(strides):
    matcher = make(attention=strides)
    assert set(matcher.prepare) == {str(s) for s in strides}
    assert len(matcher.integrate) == len(strides) - 1
    needed = {n for s in strides for n in matcher.layers[s]} | {"a1", "b1:pre"}
    assert set(matcher.request().layers) == needed
    query, other, masks = features(matcher, 1), features(matcher, 1, 1, seed=1), masks_of(1, 1)
    assert run(matcher, query, other, masks).shape == (1, SIZE, SIZE)
    assert set(aggregated(matcher, query, embed_episodes(matcher, other, masks))) == set(strides)


@pytest.mark.parametrize("strides", [(4, 8), (4,), (8,), (), (4, 8, 16), (16,)])
@pytest.mark.parametrize("support_skip", [True, False])
def test_skip_connections(strides, support_skip):
    matcher = make(skip=strides, support_skip=support_skip)
    channels = sum({4: 8, 8: 16, 16: 32}[s] for s in strides) * (2 if support_skip else 1)
    assert matcher.mixer[0][0].in_channels == 128 + channels
    query, other, masks = features(matcher, 1), features(matcher, 1, 2, seed=1), masks_of(1, 2)
    embedded = embed_episodes(matcher, other, masks)
    assert len(embedded.skips) == (len(strides) if support_skip else 0)
    for name, maps in embedded.skips.items():
        assert torch.equal(maps, torch.maximum(other[name][:, 0], other[name][:, 1]))
    assert run(matcher, query, other, masks).shape == (1, SIZE, SIZE)


def test_pixel_budget():
    mask = torch.zeros(2, 6, 6)
    mask[0, :2] = 1.0  # 12 foreground pixels
    mask[1, 0, :3] = 1.0  # 3
    chosen = ablations.budget(mask, 8)
    assert chosen.shape == (2, 8)
    first, second = chosen
    assert first.tolist() == [0, 3, 6, 9, 12, 18, 24, 30]
    assert second[:3].tolist() == [0, 1, 2]
    assert len(set(second.tolist())) == 8
    assert all(3 <= position < 36 for position in second[3:].tolist())
    # Too little background: foreground fills up.
    assert (ablations.budget(1 - mask[1:], 32) < 3).sum() == 3
    assert ablations.budget(mask, 36) is None

    matcher = make(pixels=20)
    query, other, masks = features(matcher, 2), features(matcher, 2, 2, seed=1), masks_of(2, 2)
    embedded = embed_episodes(matcher, other, masks)
    assert embedded.keys["b0:pre"].shape[2] == embedded.values[8].shape[1] == 40
    assert embedded.keys["c0"].shape[2] == 2 * 16
    full = embed_episodes(make(), other, masks)
    position = 64 + ablations.budget(full.values[8].view(4, 8, 8), 20)[3, 5].item()
    assert torch.equal(embedded.keys["b1:pre"][1, :, 25], full.keys["b1:pre"][1, :, position])
    assert embedded.values[8][1, 25] == full.values[8][1, position]
    assert torch.equal(run(matcher, query, other, masks), run(matcher, query, other, masks))


def _threshold(plane):
    (found,) = ablations.otsu_thresholds(torch.from_numpy(plane)[None])
    return found.item()


@pytest.mark.parametrize("stride", [8, 16])
def test_binarised_aggregated_masks(stride):
    matcher = make(output=f"1/{stride}")
    query, other, masks = features(matcher, 2), features(matcher, 2, 1, seed=1), masks_of(2, 1)
    found = run(matcher, query, other, masks)
    with torch.no_grad():
        embedded = embed_episodes(matcher, other, masks)
        sums = aggregated(matcher, query, embedded)[stride].sum(1).numpy()
    expected = np.stack([each > _threshold(each) for each in sums])
    assert np.array_equal(found.numpy() > 0, expected)
    assert set(found.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("values", "threshold"),
    [
        ([0, 1], 0.001953125),
        ([0, 1, 2, 10], 2.01171875),
        ([-3, -2.5, 4, 5, 5.5], -2.4853515625),
        ([i * i * 37 % 101 / 101 for i in range(120)], 0.4853805601596832),
        ([(i * 29 % 97) ** 2 / 101 for i in range(120)], 37.96039581298828),
        ([(i**3 % 53 + 200 * (i % 4 == 0)) / 101 for i in range(120)], 0.5116800665855408),
        ([0.25] * 6, 0.25),
    ],
)
def test_otsu_thresholds_of_scikit_image(values, threshold):
    plane = np.array([values], dtype=np.float32)
    assert _threshold(plane) == pytest.approx(threshold, rel=1e-6)


def test_otsu_of_a_constant_map_is_background():
    assert (ablations.otsu(torch.full((1, 4, 4), 0.3)) == -1).all()


# --- ensembles ------------------------------------------------------------------------------------

VOTES = torch.tensor([[[3.0, 3.0, 3.0, -3.0]], [[1.0, 1.0, -1.0, -1.0]], [[2.0, -2.0, -2.0, -2.0]]])


def test_voting():
    logits = ablations.combine([v[None] for v in VOTES], "voting")  # votes 3 2 1 0
    assert (logits > 0).tolist() == [[[True, True, False, False]]]
    tie = ablations.combine([v[None] for v in VOTES[:2]], "voting")  # 2 2 1 0: half is too few
    assert (tie > 0).tolist() == [[[True, True, False, False]]]


def test_hsnets_votes():
    logits = ablations.combine([v[None] for v in VOTES], "hsnet")
    assert (logits > 0).tolist() == [[[True, True, False, False]]]  # 3/3 2/3 1/3 0
    tie = ablations.combine([v[None] for v in VOTES[:2]], "hsnet")
    assert (tie > 0).tolist() == [[[True, True, True, False]]]  # 1/2 is enough
    alone = ablations.combine([-VOTES[:1].abs(), VOTES[1:2] - 1.5, VOTES[1:2] - 5], "hsnet")
    assert not (alone > 0).any()  # nobody votes
    few = ablations.combine([-VOTES[:1].abs(), VOTES[1:2], -VOTES[1:2].abs()], "hsnet")
    assert (few > 0).tolist() == [[[True, True, False, False]]]  # 1 vote is the largest


def test_averaging_is_of_probabilities():
    logits = ablations.combine([v[None] for v in VOTES], "averaging")
    mean = (0.95257413 + 0.73105858 + 0.11920292) / 3
    assert logits[0, 0, 1].item() == pytest.approx(math.log(mean / (1 - mean)), abs=1e-4)
    same = ablations.combine([VOTES[:1]] * 4, "averaging")
    torch.testing.assert_close(same, VOTES[:1], rtol=1e-4, atol=1e-4)


def test_cross_guided_averaging():
    weighted = ablations.combine([v[None] for v in VOTES], "scl", torch.tensor([[0.0, 0.5, 0.0]]))
    torch.testing.assert_close(weighted, VOTES[1:2], rtol=1e-4, atol=1e-4)
    unknown = ablations.combine([v[None] for v in VOTES], "scl", torch.zeros(1, 3))
    average = ablations.combine([v[None] for v in VOTES], "averaging")
    torch.testing.assert_close(unknown, average)

    # Supports that say "everything", "nothing" and "the left half", which is right.
    masks = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    masks[..., :2] = 1
    left = torch.where(masks[:, 0] == 1, 1.0, -1.0)
    answers = [torch.ones(1, 4, 4), -torch.ones(1, 4, 4), left]
    weights = ablations.guided_weights(
        lambda query, support: answers[support],
        [ablations.Guide(None, None, mask) for mask in masks.unbind(1)],
        [0, 1, 2],
    )
    assert weights.tolist() == [[0.5, 0.0, 1.0]]


@pytest.mark.parametrize("strategy", ["voting", "averaging", "hsnet", "scl"])
def test_ensembles_are_made_of_1_shot_predictions(strategy):
    query, other = features(make(), 2), features(make(), 2, 3, seed=1)
    masks = masks_of(2, 3)
    single = [
        run(make(), query, part(other, slice(None), slice(k, k + 1)), masks[:, k : k + 1])
        for k in range(3)
    ]
    matcher = make(shots=strategy)
    embedded = embed_episodes(matcher, other, masks)
    expected = ablations.combine(single, strategy, embedded.weights)
    torch.testing.assert_close(run(matcher, query, other, masks), expected)
    # One shot is the same for all strategies.
    one = run(matcher, query, part(other, slice(None), slice(0, 1)), masks[:, :1])
    torch.testing.assert_close(one, single[0])
    with pytest.raises(FssbenchError, match="use one-pass"):
        aggregated(matcher, query, embedded)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "8,12"}, "attention: give each of 8, 16, 32 at most once"),
        ({"attention": "8,8"}, "attention: give each of 8, 16, 32 at most once"),
        ({"attention": ""}, "attention: name at least one"),
        ({"skip": "32"}, "skip: give each of 4, 8, 16 at most once"),
        ({"output": "1/8", "attention": "16"}, "output 1/8: attention has no such scale"),
        ({"pixels": "1"}, "'pixels' must be >= 2"),
        ({"heads": "0"}, "'heads' must be >= 1"),
        ({"dropout": "1"}, "'dropout' must be < 1"),
        ({"gain": "0"}, "'gain' must be > 0"),
        ({"shots": "best"}, "expected one of one-pass, voting, averaging, hsnet, scl"),
        ({"heads": "7"}, "32 channels of layer 'd0' of four-scales cannot be divided among 7"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(FssbenchError, match=message):
        make(**options)


def test_backbones_without_four_scales():
    with pytest.raises(
        FssbenchError, match="needs a layer of stride 32, and vgg16 has strides 1, "
    ):
        fssbench.matcher("dcama", "vgg16")
    with pytest.raises(
        FssbenchError, match="needs a layer of stride 4, and dinov2-s has strides 1"
    ):
        fssbench.matcher("dcama", "dinov2-s")


# --- other backbones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "maps", "first", "skips"),
    [
        ("resnet50", 384, (4, 6, 3), "layer1.2:pre", 2 * (256 + 512)),
        ("resnet101", 384, (4, 23, 3), "layer1.2:pre", 2 * (256 + 512)),
        ("swin-b", 384, (2, 18, 2), "layers.0.blocks.1", 2 * (128 + 256)),
        ("mobilenetv2", 384, (3, 7, 5), "blocks.1.1", 2 * (24 + 32)),
        ("tiny-resnet", 160, (3, 3, 2), "layer1.1:pre", 2 * (32 + 64)),
    ],
)
def test_scales_of_backbones(name, size, maps, first, skips):
    matcher = fssbench.matcher("dcama", name)
    request = matcher.request()
    assert (request.size, request.layers[0]) == (size, first)
    assert tuple(len(matcher.layers[s]) for s in (8, 16, 32)) == maps
    assert len(request.layers) == sum(maps) + 1
    assert matcher.mixer[0][0].in_channels == 128 + skips
    assert len(matcher.attention) == (6 if name == "mobilenetv2" else 3)


def test_one_training_step_lowers_the_loss():
    matcher = make(dropout=0.0).train()
    (stage,) = stages(matcher)
    masks = masks_of(2, 1)
    batch = fssbench.EpisodeBatch(
        class_ids=torch.zeros(2, dtype=torch.long),
        query=features(matcher, 2),
        support=features(matcher, 2, 1, seed=1),
        query_masks=masks[:, 0],
        support_masks=masks,
        query_images=torch.zeros(2, 3, SIZE, SIZE),
        support_images=torch.zeros(2, 1, 3, SIZE, SIZE),
    )
    optimiser = torch.optim.SGD(matcher.parameters(), lr=0.05)
    before = stage.losses(matcher, batch)["bce"]
    before.backward()
    assert all(parameter.grad is not None for parameter in matcher.parameters())
    optimiser.step()
    assert stage.losses(matcher, batch)["bce"] < before


def test_ignored_query_pixels_count_as_background():
    matcher = make(dropout=0.0)
    (stage,) = stages(matcher)
    query, other, masks = features(matcher, 1), features(matcher, 1, 1, seed=1), masks_of(1, 1)
    marked = masks[:, 0].clone()
    marked[:, :4] = 255
    images = torch.zeros(1, 3, SIZE, SIZE)
    batch = fssbench.EpisodeBatch(
        class_ids=torch.zeros(1, dtype=torch.long), query=query, support=other, query_masks=marked,
        support_masks=masks, query_images=images, support_images=images[:, None],
    )  # fmt: skip
    logits = run(matcher, query, other, masks)
    two = torch.stack([torch.zeros_like(logits), logits], 1)
    expected = functional.cross_entropy(two, (marked == 1).long())
    torch.testing.assert_close(stage.losses(matcher, batch)["bce"], expected)
