"""DCAMA with ResNet-50 at 384, 5-shot: against the form that one would write down first."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path

import pytest
import torch

import fssbench
from fssbench import embed_episodes
from fssbench.build import describe
from fssbench.registry import registry
from fssbench.specs import BackboneSpec
from fssbench_dcama.cascade import cascade

pytestmark = pytest.mark.benchmark

SIZE, SHOTS = 384, 5
REFS, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@pytest.fixture(scope="module")
def matcher():
    torch.manual_seed(0)
    return fssbench.matcher("dcama", "resnet50")


@pytest.fixture(scope="module")
def episode(matcher):
    """Features of a query and of five supports, and masks."""
    info = describe(registry().get(BackboneSpec, "resnet50"))

    def features(*batch):
        return {
            name: torch.randn(*batch, layer.channels, SIZE // layer.stride, SIZE // layer.stride)
            for name in matcher.request().layers
            for layer in (info.layer(name),)
        }

    masks = torch.zeros(1, SHOTS, SIZE, SIZE, dtype=torch.uint8)
    masks[..., 100:300, 80:260] = 1
    return features(1), features(1, SHOTS), masks


def straightforward(matcher, query, support, masks):
    """Everything anew for each query, and all attention weights of a layer at once."""
    aggregated = {}
    foreground = (masks == 1).float()
    for stride in (8, 16, 32):
        side = SIZE // stride
        values = torch.nn.functional.interpolate(
            foreground, (side, side), mode="bilinear", align_corners=True
        ).flatten(1)
        maps = []
        for name in matcher.layers[stride]:
            module = matcher._attention(stride, name)
            positions = module.positions[: side * side]
            tokens = query[name].flatten(2).transpose(1, 2) + positions
            others = support[name].flatten(3).transpose(2, 3) + positions
            queries, keys = module.query(tokens), module.key(others.flatten(1, 2))
            queries, keys = (x.unflatten(-1, (8, -1)).transpose(1, 2) for x in (queries, keys))
            scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
            weights = scores.softmax(-1)  # (1, 8, Q, S)
            each = weights @ values[:, None, :, None].expand(-1, 8, -1, -1)
            maps.append(each.mean(1).view(1, side, side))
        aggregated[stride] = torch.stack(maps, 1)
    skips = {name: support[name].amax(1) for name in matcher.skips}
    joined = cascade(aggregated, prepare=matcher.prepare, integrate=matcher.integrate)
    sides = (matcher._mixed_skips(query, side=0), matcher._mixed_skips(skips, side=1))
    mixed = matcher.mixer(joined, *sides)
    return mixed[:, 1] - mixed[:, 0]


def ours(matcher, query, support, masks):
    return matcher(query, support, masks)


def extra_memory(call):
    """Peak resident memory of a call above what was there before, in bytes."""

    def kilobytes(key):
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith(key))
        return int(line.split()[1])

    before = kilobytes("VmRSS")
    REFS.write_text("5")  # forget the peak so far
    call()
    return 1024 * (kilobytes("VmHWM") - before)


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.inference_mode()
def test_both_forms_say_the_same(matcher, episode):
    torch.testing.assert_close(
        ours(matcher, *episode), straightforward(matcher, *episode), rtol=1e-4, atol=1e-5
    )


@torch.inference_mode()
def test_peak_memory_is_half_at_most(matcher, episode, benchmark):
    try:
        REFS.write_text("5")
    except OSError:
        pytest.skip("this system does not tell a process its peak memory anew")
    # Ours first: what the other form leaves behind in the allocator would be free for it.
    peak = extra_memory(lambda: ours(matcher, *episode))
    theirs = extra_memory(lambda: straightforward(matcher, *episode))
    benchmark.extra_info.update(mib=peak >> 20, straightforward_mib=theirs >> 20)
    benchmark.pedantic(lambda: ours(matcher, *episode), rounds=1)
    assert peak <= theirs / 2, (peak, theirs)


@torch.inference_mode()
def test_an_episode_with_cached_support_takes_no_longer(matcher, episode, benchmark):
    query, support, masks = episode
    embedded, asked = embed_episodes(matcher, support, masks), matcher.prepare_query(query)
    theirs = [seconds(lambda: straightforward(matcher, *episode)) for _ in range(3)]
    benchmark.pedantic(lambda: matcher.segment(asked, embedded), rounds=3, warmup_rounds=1)
    benchmark.extra_info["straightforward_seconds"] = statistics.median(theirs)
    assert benchmark.stats.stats.median <= statistics.median(theirs)
