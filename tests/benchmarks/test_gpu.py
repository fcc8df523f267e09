"""Evaluation on a GPU against the plain loop there, side by side: ``tools/gpu_checks.py``.

The plain loop decodes in its own process, as the authors' test scripts do by default, so the table
has its time with and without loading. Ours is what `fssbench evaluate` does, loader processes and
all. Both run the same model, with random weights, on the same episodes of PASCAL's sizes.
"""

from __future__ import annotations

import importlib
import os
import time

import pytest
import torch
from bench_data import Photographs, episodes_like_pascal
from bench_report import TABLES
from methods import pipeline_of
from plain_loop import EQUAL, apart, plain_episode, rows_of

from fssbench.episodes.chunks import chunks_of
from fssbench.evaluation.measure import measure_chunks
from fssbench.inference.chunk_loader import load_chunks
from fssbench.inference.feature_cache import FeatureCache
from fssbench.metrics.iou import IoU
from fssbench.nn.flops import flop_counter
from fssbench.runtime.memory import default_budget

pytestmark = [pytest.mark.benchmark, pytest.mark.gpu, pytest.mark.timeout(1200)]

scan = importlib.import_module("fssbench.nn.selective_scan")  # the module, not the function

METHODS = os.environ.get("FSSBENCH_BENCH_METHODS", "dcama,hdmnet,fsdino,uinofss-comp,uinofss")
EPISODES = int(os.environ.get("FSSBENCH_GPU_EPISODES", "1000"))
SAMPLE = int(os.environ.get("FSSBENCH_GPU_SAMPLE", "30"))
PRECISIONS = os.environ.get("FSSBENCH_GPU_PRECISIONS", "fp32,bf16").split(",")
BATCHES = {"uinofss": 4}
"""Episodes that are segmented at once, where a chunk's 20 would take too much memory."""

PEAK = 989e12
"""Dense bf16 operations per second of an H100 or H200, by NVIDIA's data sheet."""

CASES = [
    (method, shots, precision)
    for method in METHODS.split(",")
    for shots in (1, 5)
    for precision in PRECISIONS
]

SCANS = {
    "UINO-FSS, 2048 blocks": (2048, 256, 1, 4, 256),
    "one long sequence": (1, 64, 1, 4, 4096),
    "16 states": (8, 256, 16, 4, 4096),
}
"""(b, d, n, g, L)"""


class Waiting:
    """An iterator that tells how long it was waited for."""

    def __init__(self, items):
        self._items = iter(items)
        self.seconds = 0.0

    def __iter__(self):
        return self

    def __next__(self):
        start = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - start


def seconds(call, rounds=20):
    """Mean of a call, with the GPU's queue empty before and after."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(rounds):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / rounds


def plain_loop(pipeline, dataset, episodes):
    """Rows by episode; seconds of an episode, and without loading."""
    loading = 0.0

    class Timed:
        def __getattr__(self, name):
            def call(*arguments):
                nonlocal loading
                start = time.perf_counter()
                try:
                    return getattr(dataset, name)(*arguments)
                finally:
                    loading += time.perf_counter() - start

            return call

    before, pipeline.encode_batch = pipeline.encode_batch, 1
    for episode in episodes[:3]:
        plain_episode(pipeline, dataset, episode)
    torch.cuda.synchronize()
    start = time.perf_counter()
    rows = {e.index: plain_episode(pipeline, Timed(), e) for e in episodes}
    torch.cuda.synchronize()
    spent = time.perf_counter() - start
    pipeline.encode_batch = before
    return rows, spent / len(episodes), (spent - loading) / len(episodes)


def evaluation(pipeline, dataset, episodes, batch_size):
    """Rows by episode, seconds of one, and the share in which a loader was waited for."""
    torch.cuda.reset_peak_memory_stats()
    chunks = chunks_of(episodes)
    cache = FeatureCache(pipeline, dataset, default_budget(pipeline.device), batch_size=batch_size)
    loaded = Waiting(
        load_chunks(
            cache.plan(chunks), dataset, pipeline.geometry, score_size="original",
            workers=min(8, len(os.sched_getaffinity(0)) - 1), pin=True,
        )
    )  # fmt: skip
    rows, first, start = {}, 0, 0.0
    for result in measure_chunks(loaded, pipeline.device, cache, [IoU()], batch_size=batch_size):
        rows |= rows_of(result)
        if not first:  # processes start once a run, however long it is
            first, start, loaded.seconds = len(rows), time.perf_counter(), 0.0
    spent = time.perf_counter() - start
    return rows, spent / (len(rows) - first), loaded.seconds / spent


@pytest.mark.parametrize(("method", "shots", "precision"), CASES)
def test_side_by_side(method, shots, precision, tmp_path):
    images, episodes = episodes_like_pascal(EPISODES, shots)
    dataset = Photographs(tmp_path, images)
    pipeline = pipeline_of(method, precision, "cuda")
    some = episodes[:: max(1, len(episodes) // SAMPLE)][:SAMPLE]
    batch = BATCHES.get(method, 20)
    evaluation(pipeline, dataset, episodes[:60], batch)
    plain_rows, plain, computing = plain_loop(pipeline, dataset, some)
    rows, mine, waiting = evaluation(pipeline, dataset, episodes, batch)
    worst = apart(plain_rows, rows)
    TABLES["episodes per second on a GPU"].append(
        {
            "method": method, "shots": shots, "precision": precision, "batch": batch,
            "plain": f"{1 / plain:.1f}", "plain, loading apart": f"{1 / computing:.1f}",
            "here": f"{1 / mine:.1f}", "times": f"{plain / mine:.1f}",
            "times, loading apart": f"{computing / mine:.1f}",
            "waiting for loaders": f"{100 * waiting:.0f} %",
            "MiB": round(torch.cuda.max_memory_allocated() / 2**20),
            "rows differ by": f"{worst:.1e}",
        }
    )  # fmt: skip
    assert worst <= EQUAL or precision != "fp32"


@pytest.mark.parametrize("method", list(dict.fromkeys(method for method, *_ in CASES)))
def test_share_of_the_peak(method):
    """Arithmetic of the encoder in bf16 against what the GPU could do."""
    pipeline = pipeline_of(method, "bf16", "cuda")
    size, batch = pipeline.request.size, pipeline.encode_batch
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device="cuda")
    with flop_counter() as counted:
        pipeline.encode(images)
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    possible = 2 * 8192**3 / seconds(lambda: square @ square)
    rate = counted.get_total_flops() / seconds(lambda: pipeline.encode(images))
    TABLES["encoders in bf16"].append(
        {
            "encoder": pipeline.backbone.info.name, "side": size, "batch": batch,
            "TFLOP/s": f"{rate / 1e12:.0f}", "of a large product here": f"{rate / possible:.0%}",
            "of the data sheet": f"{rate / PEAK:.0%}",
        }
    )  # fmt: skip
    assert 0 < rate < PEAK


@pytest.mark.parametrize("name", SCANS)
def test_mambas_kernel_against_the_torch_scan(name, monkeypatch):
    kernel = scan._kernel()
    if kernel[0] is None:
        pytest.skip(kernel[1])
    batch, channels, states, groups, length = SCANS[name]
    torch.manual_seed(0)
    inputs = [
        torch.randn(batch, channels, length, device="cuda"),
        0.1 * torch.rand(batch, channels, length, device="cuda"),
        -torch.rand(channels, states, device="cuda") - 0.1,
        torch.randn(batch, groups, states, length, device="cuda"),
        torch.randn(batch, groups, states, length, device="cuda"),
    ]
    leaves = [x.detach().requires_grad_() for x in inputs]

    def forward():
        with torch.no_grad():
            return [scan.selective_scan(*inputs)]

    def both():
        return torch.autograd.grad(scan.selective_scan(*leaves).square().mean(), leaves)

    row = {"scan": name, "(b, d, n, g, L)": str(SCANS[name])}
    for what, call in (("forward", forward), ("and backward", both)):
        found = {}
        for which, function in (("kernel", kernel), ("torch", (None, "switched off"))):
            monkeypatch.setattr(scan, "_kernel", lambda function=function: function)
            torch.cuda.reset_peak_memory_stats()
            values, time_ = call(), seconds(call)
            found[which] = values, time_, torch.cuda.max_memory_allocated()
        for which, (_, time_, most) in found.items():
            row[f"{what}: {which}, ms"] = f"{1000 * time_:.2f}"
            row[f"{what}: {which}, MiB"] = round(most / 2**20)
        row[f"{what}: times"] = f"{found['torch'][1] / found['kernel'][1]:.1f}"
        difference = max(
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(found["kernel"][0], found["torch"][0], strict=True)
        )
        row[f"{what}: apart"] = f"{difference:.0e}"
        assert difference < 1e-3
    TABLES["selective scan: mamba-ssm's kernel and torch"].append(row)
