"""The method and its options, on random features of a small backbone."""

from __future__ import annotations

import json

import pytest
import torch
from hdmnet_features import INFO, SIZE, features, make, masks_of, part, run, stage_of
from torch.nn import functional

import fssbench
from fssbench import FssbenchError, embed_episodes
from fssbench.nn.flops import flop_counter
from fssbench_hdmnet.ensemble import Ensemble, gram
from fssbench_hdmnet.matching import Keys, MatchingModule, inverse_softmax
from fssbench_hdmnet.priors import directions, foreground_vectors, prior_map


def count(*modules):
    return sum(p.numel() for module in modules for p in module.parameters())


def test_parameters_are_the_authors(golden_folder):
    told = json.loads((golden_folder / "params_hdmnet.json").read_text())["hdmnet_resnet50_1shot"]
    matcher = fssbench.matcher("hdmnet", "resnet50-psp")
    groups = {group.name: group for group in stage_of(matcher).parameters(matcher, None)}
    pairs = {
        "transformer": "transformer.mix_transformer", "reduce_query": "down_query",
        "reduce_support": "down_supp", "merge_query": "query_merge",
        "merge_support": "supp_merge", "gram_merge": "gram_merge", "base_merge": "cls_merge",
    }  # fmt: skip
    assert set(groups) == set(pairs)
    for ours, theirs in pairs.items():
        assert sum(p.numel() for p in groups[ours].parameters) == told[f"optim.{theirs}"]
        rate = 1e-4 * groups[ours].lr_scale
        assert rate == pytest.approx(told[f"optim_lr_at_construction.{theirs}"])
    learned = sum(p.numel() for group in groups.values() for p in group.parameters)
    assert learned == told["optim_total"] == 4_161_734  # table 3: 4.2 M
    # What a record counts, also for five shots.
    for shots in (1, 5):
        counted = fssbench.matcher("hdmnet", "resnet50-psp", shots=shots).parameters()
        assert sum(p.numel() for p in counted if p.requires_grad) == learned
    assert count(matcher.pyramid) == told["transformer.down_sample_layers"]
    assert count(matcher.matching) == told["transformer.match_layers"]
    assert count(matcher.decoder.parse) == told["transformer.parse_layers"]
    assert count(matcher.decoder.classify) == told["transformer.cls"]
    for name in ("gram_merge", "base_merge"):
        assert getattr(matcher.ensemble, name).weight.flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("stages", "millions"), [("S1", 1.3), ("S2", 2.0), ("S3", 2.8)])
def test_sizes_of_table_7(stages, millions):
    matcher = fssbench.matcher("hdmnet", "resnet50-psp", stages=stages)
    assert round(count(matcher.matching, matcher.decoder) / 1e6, 1) == millions


def test_operations_of_the_transformer():
    matcher = fssbench.matcher("hdmnet", "resnet50-psp")
    maps, priors = torch.rand(2, 1, 64, 60, 60), torch.rand(1, 2, 60, 60)
    with torch.no_grad(), flop_counter() as operations:
        query, support = (matcher.pyramid(each) for each in maps)
        matched = []
        for module, level, other in zip(matcher.matching, query, support, strict=True):
            keys = module.keys(other.tokens, torch.ones(other.tokens.shape[:2]))
            resized = functional.interpolate(priors, level.size)
            matched.append(module(level.tokens, level.size, keys, resized)[0])
        matcher.decoder(matched)
    assert operations.get_total_flops() == pytest.approx(17.8e9, rel=0.02)


# --- features and contract ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers", "size"),
    [
        ("resnet50-psp", ("layer2", "layer3", "layer4"), 473),
        ("resnet101-psp", ("layer2", "layer3", "layer4"), 473),
        ("vgg16-bn", ("layer2", "layer3", "layer4"), 473),
        ("resnet50", ("layer2.3", "layer3.5", "layer4.2"), 384),
        ("tiny-resnet", ("layer2.2", "layer3.2", "layer4.1"), 160),
        ("mobilenetv2", ("blocks.2.2", "blocks.4.2", "conv_head"), 384),
        ("swin-b", ("layers.1.blocks.1", "layers.2.blocks.17", "layers.3.blocks.1"), 384),
        ("dinov2-s", ("blocks.6", "blocks.9", "norm"), 518),
    ],
)
def test_layers_of_backbones(name, layers, size):
    request = fssbench.matcher("hdmnet", name).request()
    assert (request.layers, request.size) == (layers, size)
    assert request.resize == "squash"
    assert request.mask_support


def test_chosen_layers_and_grid():
    matcher = fssbench.matcher("hdmnet", INFO, layers="a0,b0,c0", grid=4)
    assert matcher.request().layers == ("a0", "b0", "c0")
    matcher = make()
    with torch.no_grad():
        support = embed_episodes(matcher, features(1, 1), masks_of(1, 1))
        found = matcher.outputs(matcher.prepare_query(features(1)), support)
    assert found.meta.shape == (1, 2, 8, 8)
    assert found.priors.shape == (1, 2, 8, 8)
    assert found.base.shape == (1, 5, 2, 2)
    assert [tuple(maps.shape) for maps in found.correlations] == [(1, 8, 8), (1, 4, 4), (1, 2, 2)]
    matcher = make(grid=None)
    support = embed_episodes(matcher, features(1, 1), masks_of(1, 1))
    assert matcher.outputs(matcher.prepare_query(features(1)), support).meta.shape == (1, 2, 4, 4)


@pytest.mark.parametrize("name", ["tiny-resnet", "mobilenetv2"])
def test_small_backbones(name):
    backbone = fssbench.backbone(name, "random")
    matcher = fssbench.matcher("hdmnet", backbone, size=96, grid=8)
    names = matcher.request().layers
    with torch.no_grad():
        query, support = (backbone(torch.rand(1, 3, 96, 96), names) for _ in range(2))
    masks = torch.zeros(1, 1, 96, 96, dtype=torch.uint8)
    masks[..., 20:70, 30:80] = 1
    logits = run(matcher, query, {n: maps[None] for n, maps in support.items()}, masks)
    assert logits.shape == (1, 96, 96)
    assert torch.isfinite(logits).all()


def test_episodes_of_a_batch_do_not_mix():
    for shots in (1, 5):
        matcher = make(shots=shots)
        query, other, masks = features(3), features(3, shots, seed=1), masks_of(3, shots)
        together = run(matcher, query, other, masks)
        for b in range(3):
            one = slice(b, b + 1)
            alone = run(matcher, part(query, one), part(other, one), masks[one])
            torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_a_support_repeated_three_times_equals_one_shot():
    # Inverse softmax is over the query: keys do not compete, so three of one weigh three times.
    # With a softmax over keys, nothing changes.
    matcher = make(matching="cosine-softmax")
    query, other, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    once = run(matcher, query, other, masks)
    thrice = run(matcher, query, part(other, slice(None), [0, 0, 0]), masks[:, [0, 0, 0]])
    torch.testing.assert_close(once, thrice, rtol=1e-4, atol=1e-5)
    matcher = make()
    support = [
        embed_episodes(matcher, part(other, slice(None), [0] * k), masks[:, [0] * k])
        for k in (1, 3)
    ]
    with torch.no_grad():
        first, second = (matcher.outputs(matcher.prepare_query(query), each) for each in support)
    torch.testing.assert_close(first.priors, second.priors)
    torch.testing.assert_close(first.correlations[0], second.correlations[0])
    assert (first.meta - second.meta).abs().max() > 1e-3


def test_ignored_and_background_pixels_of_the_support_have_no_effect():
    matcher = make()
    query, other, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    ignored = torch.where(masks == 0, 255, masks).to(torch.uint8)
    assert torch.equal(run(matcher, query, other, masks), run(matcher, query, other, ignored))


def test_without_the_support_mask_nothing_depends_on_it():
    matcher = make(support_mask=False)
    assert not matcher.request().mask_support
    query, other, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    assert torch.equal(run(matcher, query, other, masks), run(matcher, query, other, 1 - masks))
    assert not torch.equal(run(make(), query, other, masks), run(make(), query, other, 1 - masks))


def test_without_the_ensemble_the_meta_output_is_final():
    matcher = make(ensemble=False)
    support = embed_episodes(matcher, features(1, 1), masks_of(1, 1))
    found = matcher.outputs(matcher.prepare_query(features(1)), support)
    assert found.final is found.meta
    assert found.base is None
    assert not [name for name in matcher.state_dict() if name.startswith("ensemble.")]


def test_an_empty_support_mask_gives_finite_logits():
    query, other = features(1), features(1, 1, seed=1)
    empty = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8)
    for matching in ("cross-attention", "cosine", "cosine-softmax", "cosine-inverse-softmax"):
        assert torch.isfinite(run(make(matching=matching), query, other, empty)).all()


# --- parts against transcriptions of their equations ----------------------------------------------


def test_inverse_softmax_is_over_the_query():
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 2, n, 4, generator=generator) for n in (9, 300, 300))
    correlation = torch.einsum("bhqd,bhsd->bhqs", queries, keys)
    weights = correlation.exp() / correlation.exp().sum(2, keepdim=True)  # equation 5
    expected = torch.einsum("bhqs,bhsd->bhqd", weights, values)
    torch.testing.assert_close(inverse_softmax(queries, keys, values), expected)
    with torch.no_grad():
        torch.testing.assert_close(inverse_softmax(queries, keys, values), expected)


def test_inverse_softmax_in_pieces(monkeypatch):
    from fssbench_hdmnet import matching

    queries, keys, values = (torch.randn(2, 2, n, 4) for n in (9, 31, 31))
    whole = inverse_softmax(queries, keys, values)
    monkeypatch.setattr(matching, "_AT_ONCE", 2 * 2 * 9 * 4)
    with torch.no_grad():
        torch.testing.assert_close(inverse_softmax(queries, keys, values), whole)


@pytest.mark.parametrize(
    "kind", ["cross-attention", "cosine", "cosine-softmax", "cosine-inverse-softmax"]
)
def test_matching_weights(kind):
    torch.manual_seed(0)
    module = MatchingModule(8, priors=2, matching=kind, temperature=0.1, dropout=0.0).eval()
    queries, tokens = torch.randn(1, 6, 8), torch.randn(1, 10, 8)
    foreground = torch.tensor([[1.0, 0, 0, 1, 1, 0, 1, 0, 1, 1]])
    support = module.keys(tokens, foreground)
    heads = module._directed(module.query(module.norm1(queries)))
    found = module._retrieve(heads * module.scale, support)

    q = module.query(module.norm1(queries)).view(6, 2, 4).transpose(0, 1)  # (heads, Q, d)
    k = module.key(module.norm1(tokens)).view(10, 2, 4).transpose(0, 1)
    v = module.value(module.norm1(tokens)).view(10, 2, 4).transpose(0, 1)
    if kind == "cross-attention":
        scores = q @ k.transpose(1, 2) / 2
    else:
        scores = functional.cosine_similarity(q[:, :, None], k[:, None], dim=-1) / 0.1
    inside = foreground[0] == 1
    if kind == "cosine":
        weights = scores * inside / inside.sum()
    elif kind == "cosine-inverse-softmax":
        weights = scores.softmax(1) * inside
    else:
        weights = scores.masked_fill(~inside, -torch.inf).softmax(2)
    torch.testing.assert_close(found[0], weights @ v)
    correlation = module(queries, (2, 3), support, torch.zeros(1, 2, 2, 3))[1]
    expected = scores[:, :, inside].mean(2).mean(0).view(1, 2, 3)  # equation 7
    torch.testing.assert_close(correlation, expected)


def test_priors_are_largest_cosines_averaged_over_shots():
    torch.manual_seed(0)
    query, support = torch.randn(1, 5, 3, 3), torch.randn(1, 2, 5, 4, 4)
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, :4, :4] = masks[0, 1, 2:, 2:] = 1
    found = prior_map(directions(query), foreground_vectors(support, masks).unbind(1))
    found = found.unflatten(2, (3, 3))
    expected = torch.zeros(2, 3, 3)
    for k in range(2):
        for y in range(3):
            for x in range(3):
                cosines = [
                    functional.cosine_similarity(query[0, :, y, x], support[0, k, :, i, j], dim=0)
                    for i in range(4) for j in range(4) if masks[0, k, 2 * i, 2 * j] == 1
                ]  # fmt: skip
                expected[k, y, x] = max(0.0, *cosines)
    torch.testing.assert_close(found[0, 0], expected.mean(0))


def test_reweighting_of_shots_uses_weights_in_ascending_order():
    torch.manual_seed(0)
    ensemble = Ensemble(shots=3)
    query, supports = gram(torch.rand(2, 4, 3, 3)), torch.stack(
        [gram(torch.rand(2, 4, 3, 3)) for _ in range(3)], 1
    )  # fmt: skip
    each = (query[:, None] - supports).flatten(2).norm(dim=2) / 4
    weights = ensemble.reweight(each.sort(1)[0][:, :, None, None]).softmax(1)[:, :, 0, 0]
    found = ensemble.difference(query, supports)[:, 0, 0, 0]
    torch.testing.assert_close(found, (weights * each).sum(1))
    two = ensemble.difference(query, supports[:, :2])[:, 0, 0, 0]
    torch.testing.assert_close(two, each[:, :2].mean(1))
    assert torch.equal(gram(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 3))


def test_the_mean_key_without_foreground_is_zero():
    keys = Keys(torch.randn(1, 2, 5, 3), torch.zeros(1, 2, 5, 3), torch.zeros(1, 1, 5, 1))
    assert (keys.mean() == 0).all()


def test_merged_convolutions_are_the_layers_one_after_the_other():
    torch.manual_seed(0)
    decoder = make().decoder
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.bias)
    maps = [torch.randn(2, 64, side, side) for side in (8, 4, 2)]
    plain = decoder.eval()(maps)
    decoder.train()
    for module in decoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    torch.testing.assert_close(decoder(maps), plain, rtol=1e-4, atol=1e-4)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "a0,b0"}, "layers: name three"),
        ({"layers": "a0,b0,e0"}, "has no layer 'e0'"),
        ({"matching": "dot"}, "expected one of cross-attention, cosine"),
        ({"stages": "S5"}, "expected one of S1, S2, S3, S4"),
        ({"temperature": "0"}, "temperature"),
        ({"dropout": "1"}, "dropout"),
        ({"grid": 32}, "gives 2 x 2 positions of 64 pixels; at least 4 are needed"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(FssbenchError, match=message):
        make(**options)


def test_backbones_of_two_layers():
    info = fssbench.BackboneInfo(
        name="two", layers={n: INFO.layers[n] for n in ("a0", "b0")}, image_size=64, multiple=32
    )
    with pytest.raises(FssbenchError, match="needs three layers, and two has 2"):
        fssbench.matcher("hdmnet", info)
