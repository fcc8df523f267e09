"""The method and its options, on random features of a small backbone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import fssbench
from fssbench import BackboneInfo, FssbenchError, LayerInfo, embed_episodes
from fssbench.nn import resize
from fssbench_repri.classifier import Classifier

SIZE = 48
INFO = BackboneInfo(
    name="two-layers",
    layers={"fine": LayerInfo(8, 4), "deep": LayerInfo(16, 8)},
    image_size=SIZE,
    multiple=8,
)


def make(**options):
    torch.manual_seed(0)
    return fssbench.matcher("repri", INFO, **options).eval()


def features(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(
            *batch, layer.channels, SIZE // layer.stride, SIZE // layer.stride, generator=generator
        )
        for name, layer in INFO.layers.items()
    }


def masks_of(batch, shots):
    masks = torch.zeros(batch, shots, SIZE, SIZE, dtype=torch.uint8)
    for b in range(batch):
        for k in range(shots):
            masks[b, k, 4 * b + 4 * k : 4 * b + 4 * k + 20, 8 : 30 + 4 * k] = 1
    masks[..., :4] = 255
    return masks


def run(matcher, query, support, masks):
    with torch.no_grad():
        return matcher(query, support, masks)


def part(maps, *index):
    return {name: each[index] for name, each in maps.items()}


@pytest.mark.parametrize("head", ["psp", "none"])
@pytest.mark.parametrize("shots", [1, 3])
def test_logits_are_those_of_a_fitted_classifier(head, shots):
    matcher = make(head=head)
    query, support, masks = features(1), features(1, shots, seed=1), masks_of(1, shots)
    found = run(matcher, query, support, masks)
    maps = torch.cat([support["deep"][0], query["deep"]])
    if head == "psp":
        with torch.no_grad():
            each = [matcher.head.embed(maps[:-1]), matcher.head.embed(maps[-1:])]
        maps = torch.cat(each).relu()
        assert maps.shape[1] == 512
    maps = functional.normalize(maps, dim=1)
    labels = masks[0, :, ::8, ::8]  # the nearest pixels
    expected = Classifier(maps[:-1], labels, maps[-1], matcher.config)
    expected.fit()
    logits = resize(expected.logits(expected.query)[None], (SIZE, SIZE))[0] - expected.bias
    torch.testing.assert_close(found, logits)
    assert found.shape == (1, SIZE, SIZE)
    assert found.min() < 0 < found.max()


def test_episodes_of_a_batch_share_nothing_and_their_order_has_no_influence():
    matcher = make()
    query, support, masks = features(3), features(3, 2, seed=1), masks_of(3, 2)
    together = run(matcher, query, support, masks)
    order = [2, 0, 1]
    turned = run(matcher, part(query, order), part(support, order), masks[order])
    torch.testing.assert_close(turned, together[order])
    # Prepared one by one, as an evaluation does: equal bit for bit.
    prepared = [matcher.prepare_query(part(query, [b]))[0] for b in range(3)]
    embedded = [embed_episodes(matcher, part(support, [b]), masks[b : b + 1])[0] for b in range(3)]
    forward = matcher.segment(prepared, embedded)
    backward = [matcher.segment([prepared[b]], [embedded[b]]) for b in (2, 1, 0)]
    assert torch.equal(forward, torch.cat(backward[::-1]))


def test_parameters_do_not_change():
    matcher = make()
    before = {name: tensor.clone() for name, tensor in matcher.state_dict().items()}
    run(matcher, features(1), features(1, 1, seed=1), masks_of(1, 1))
    assert all(torch.equal(tensor, before[n]) for n, tensor in matcher.state_dict().items())
    assert all(parameter.grad is None for parameter in matcher.parameters())


def test_autocast_does_not_lower_the_precision():
    matcher = make(head="none")
    given = features(1), features(1, 1, seed=1), masks_of(1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(matcher, *given)
    assert torch.equal(found, run(matcher, *given))


def test_adaptation_changes_masks():
    given = features(1), features(1, 1, seed=1), masks_of(1, 1)
    start, adapted = (run(make(head="none", iterations=n), *given) for n in (1, 50))
    assert 0.01 < ((start > 0) != (adapted > 0)).float().mean() < 0.99


def test_the_head_drops_channels_in_training_only():
    matcher, maps = make(dropout=0.9), features(1)
    first, second = (matcher.prepare_query(maps)[0] for _ in range(2))
    assert torch.equal(first, second)
    matcher.train()
    logits = [matcher.head(matcher.joined(features(2))) for _ in range(2)]
    assert not torch.allclose(*logits)


def test_layers():
    assert make().request().layers == ("deep",)
    matcher = make(layers=("deep", "fine"), head="none", size=96)
    assert (matcher.request().layers, matcher.request().size) == (("deep", "fine"), 96)
    maps = features(1)
    (joined,) = matcher.prepare_query(maps)
    both = torch.cat([maps["deep"], resize(maps["fine"], (6, 6))], 1)
    torch.testing.assert_close(joined, functional.normalize(both, dim=1))
    assert make(layers=("deep", "fine")).head.bottleneck[0].in_channels == 48
    with pytest.raises(FssbenchError, match="deeper"):
        make(layers=("deeper",))


def test_without_head_there_are_no_parameters():
    assert not list(make(head="none").parameters())
    assert sum(p.numel() for p in make(base_classes=60).head.classifier.parameters()) == 513 * 61


@pytest.mark.parametrize(
    ("option", "value"),
    [("iterations", 0), ("proportion_updates", (1,)), ("head", "aspp"), ("temperature", 0)],
)
def test_wrong_options(option, value):
    with pytest.raises(FssbenchError, match=option):
        make(**{option: value})


def test_gradients_at_test_time_are_declared():
    from fssbench import registry
    from fssbench.specs import MatcherSpec

    assert registry.registry().get(MatcherSpec, "repri").uses == ("gradients",)
