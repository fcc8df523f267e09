"""The method and its options, on random features of a small backbone."""

from __future__ import annotations

import pytest
import torch
from authors_numbers import fill
from torch.nn import functional

import fssbench
from fssbench import BackboneInfo, FssbenchError, LayerInfo, embed_episodes
from fssbench.nn import resize
from fssbench_hsnet.stages import stages

SIZE = 96
INFO = BackboneInfo(
    name="three-scales",
    layers={
        "a0": LayerInfo(8, 4),
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
    return fssbench.matcher("hsnet", INFO, size=SIZE, **options)


def features(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name if not layer.relu else f"{name}:pre": torch.randn(
            *batch, layer.channels, SIZE // layer.stride, SIZE // layer.stride, generator=generator
        )
        for name, layer in INFO.layers.items()
    }


def masks_of(batch, shots):
    masks = torch.zeros(batch, shots, SIZE, SIZE, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 8 * b + 4 * k : 8 * b + 4 * k + 40, 8 : 60 + 4 * k] = 1
    return masks


def run(matcher, query, support, masks):
    with torch.no_grad():
        return matcher(query, support, masks)


def part(maps, *index):
    return {name: each[index] for name, each in maps.items()}


def volumes_of(matcher, query, support, masks):
    """The volumes that the pyramid gets."""
    seen = []
    handle = matcher.hpn_learner.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    run(matcher, query, support, masks)
    handle.remove()
    return seen[0]


# --- the method -----------------------------------------------------------------------------------


def test_request_of_every_block_before_its_last_relu():
    request = make().request()
    assert request.layers == ("b0:pre", "b1:pre", "c0", "c1", "d0")
    assert request.size == SIZE


@pytest.mark.parametrize("masked", [True, False])
def test_volumes_are_equations_1_and_2(masked):
    query, support, masks = features(2), features(2, 1, seed=1), masks_of(2, 1)
    masks[0, 0, :5] = 255  # background
    found = volumes_of(make(support_mask=masked), query, support, masks)
    assert list(found) == [32, 16, 8]
    for stride, names in {32: ["d0"], 16: ["c0", "c1"], 8: ["b0:pre", "b1:pre"]}.items():
        for channel, name in enumerate(names):
            q, s = query[name], support[name][:, 0]
            if masked:
                s = s * resize((masks == 1).float(), s.shape[-2:])
            q = q / (q.norm(dim=1, keepdim=True) + 1e-5)
            s = s / (s.norm(dim=1, keepdim=True) + 1e-5)
            expected = torch.einsum("bchw,bcij->bhwij", q, s).clamp(min=0)
            assert expected.max() > 0
            torch.testing.assert_close(found[stride][:, channel], expected)


def test_vectors_as_short_as_the_epsilon_get_small_cosines():
    query, support, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    tiny = {name: maps * 1e-7 for name, maps in support.items()}
    long = volumes_of(make(), query, support, masks)[32].max()
    short = volumes_of(make(), query, tiny, masks)[32].max()
    assert 0 < short < 0.1 * long


def test_logits_cover_the_input():
    logits = run(make(), features(2), features(2, 3, seed=1), masks_of(2, 3))
    assert logits.shape == (2, SIZE, SIZE)
    assert logits.dtype == torch.float32


def test_several_shots_vote():
    """The authors' rule: votes divided by the largest vote of the image, at least one half."""
    matcher = make()
    fill(matcher)
    query, support, masks = features(2), features(2, 4, seed=1), masks_of(2, 4)

    def single():
        shots = ([k] for k in range(4))
        return torch.stack(
            [run(matcher, query, part(support, slice(None), k), masks[:, k]) for k in shots], 1
        )

    with torch.no_grad():  # half of the pixels become foreground
        matcher.hpn_learner.decoder2[-1].bias[1] -= single().median()
    votes = (single() > 0).float().sum(1)
    shares = votes / votes.flatten(1).amax(1)[:, None, None]
    assert {0.25, 0.5, 1.0} <= set(shares.unique().tolist())
    found = run(matcher, query, support, masks)
    assert torch.equal(found > 0, shares >= 0.5)
    assert found.shape == (2, SIZE, SIZE)


def test_episodes_of_a_batch_do_not_mix():
    matcher = make()
    query, support, masks = features(3), features(3, 1, seed=1), masks_of(3, 1)
    together = run(matcher, query, support, masks)
    for b in range(3):
        one = slice(b, b + 1)
        alone = run(matcher, part(query, one), part(support, one), masks[one])
        torch.testing.assert_close(together[one], alone, rtol=1e-4, atol=1e-5)


def test_without_support_mask_the_mask_changes_nothing():
    query, support, masks = features(1), features(1, 1, seed=1), masks_of(1, 1)
    for used in (True, False):
        matcher = make(support_mask=used)
        with_mask = run(matcher, query, support, masks)
        other = run(matcher, query, support, 1 - masks)
        assert torch.equal(with_mask, other) is not used


def test_prepared_values_are_support_independent_features():
    matcher = make()
    levels = matcher.prepare_query(features(2))
    assert len(levels) == 2
    assert [len(level) for level in levels[0]] == [1, 2, 2]
    for level in levels[0]:
        for maps in level:
            torch.testing.assert_close(maps.norm(dim=1), torch.ones(1, *maps.shape[2:]))
    embedded = embed_episodes(matcher, features(2, 3, seed=1), masks_of(2, 3))
    assert [shot[0][0].shape for shot in embedded] == [(2, 32, 3, 3)] * 3


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strides", [(8, 16, 32), (16, 32), (8, 32), (32,), (8,)])
def test_pyramids(strides):
    matcher = make(pyramid=strides)
    names = [name for name, _ in matcher.hpn_learner.named_children()]
    assert sum("to" in name for name in names) == len(strides) - 1
    layers = {8: ["b0:pre", "b1:pre"], 16: ["c0", "c1"], 32: ["d0"]}
    assert list(matcher.request().layers) == [n for s in strides for n in layers[s]]
    logits = run(matcher, features(1), features(1, 1, seed=1), masks_of(1, 1))
    assert logits.shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("pyramid", [(), (8, 8), (4, 8)])
def test_wrong_pyramids(pyramid):
    with pytest.raises(FssbenchError, match="pyramid: name at least one of 8, 16, 32"):
        make(pyramid=pyramid)


# --- other backbones ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "maps", "first"),
    [
        ("resnet50", 400, (4, 6, 3), "layer2.0:pre"),
        ("resnet101", 400, (4, 23, 3), "layer2.0:pre"),
        ("vgg16", 400, (3, 3, 1), "features.18:pre"),
        ("swin-b", 384, (2, 18, 2), "layers.1.blocks.0"),
        ("mobilenetv2", 400, (3, 7, 5), "blocks.2.0"),
        ("tiny-resnet", 160, (3, 3, 2), "layer2.0:pre"),
    ],
)
def test_scales_of_backbones(name, size, maps, first):
    matcher = fssbench.matcher("hsnet", name)
    assert tuple(len(matcher.layers[s]) for s in (8, 16, 32)) == maps
    request = matcher.request()
    assert (request.size, request.layers[0]) == (size, first)


def test_vgg_ends_in_its_last_pooling():
    matcher = fssbench.matcher("hsnet", "vgg16", size=64)
    names = matcher.request().layers
    assert names == tuple(f"features.{n}:pre" for n in (18, 20, 22, 25, 27, 29))
    maps = {name: torch.randn(1, 512, 8 if n < 3 else 4, 8 if n < 3 else 4)
            for n, name in enumerate(names)}  # fmt: skip
    (levels,) = matcher.prepare_query(maps)
    pooled = functional.max_pool2d(maps["features.29:pre"].relu(), 2)
    expected = pooled / pooled.norm(dim=1, keepdim=True)
    torch.testing.assert_close(levels[0][0], expected, rtol=1e-4, atol=1e-5)
    assert fssbench.matcher("hsnet", "vgg16", pyramid=(8, 32)).request().layers == (
        "features.18:pre", "features.20:pre", "features.22:pre", "features.29:pre"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dinov2-s", "needs a layer of stride 32, and dinov2-s has strides 14"),
        ("resnet50-psp", "needs a layer of stride 32, and resnet50-psp has strides 4, 8"),
    ],
)
def test_backbones_without_the_scales(name, message):
    with pytest.raises(FssbenchError, match=message):
        fssbench.matcher("hsnet", name)


# --- training -------------------------------------------------------------------------------------


def batch_of(shots=1):
    masks = masks_of(2, shots)
    images = torch.zeros(2, shots, 3, SIZE, SIZE)
    return fssbench.EpisodeBatch(
        class_ids=torch.zeros(2, dtype=torch.long), query=features(2),
        support=features(2, shots, seed=1), query_masks=masks[:, 0], support_masks=masks,
        query_images=images[:, 0], support_images=images,
    )  # fmt: skip


def test_one_training_step_lowers_the_loss():
    matcher = make().train()
    (stage,) = stages(matcher)
    optimiser = torch.optim.Adam(matcher.parameters(), lr=1e-3)
    before = stage.losses(matcher, batch_of())["ce"]
    before.backward()
    assert all(parameter.grad is not None for parameter in matcher.parameters())
    optimiser.step()
    assert stage.losses(matcher, batch_of())["ce"] < before


def test_loss_is_the_cross_entropy_of_two_channels_and_ignored_pixels_are_background():
    matcher, batch = make(), batch_of()
    (stage,) = stages(matcher)
    batch.query_masks[:, :4] = 255
    logits = run(matcher, batch.query, batch.support, batch.support_masks)
    two = torch.stack([torch.zeros_like(logits), logits], 1)
    expected = functional.cross_entropy(two, (batch.query_masks == 1).long())
    torch.testing.assert_close(stage.losses(matcher, batch)["ce"], expected)


def test_training_on_several_shots_is_refused():
    matcher = make()
    (stage,) = stages(matcher)
    with pytest.raises(FssbenchError, match="set shots = 1 in the recipe"):
        stage.losses(matcher, batch_of(2))
