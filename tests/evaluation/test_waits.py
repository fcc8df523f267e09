"""Evaluation on a simulated GPU waits for it once in a chunk."""

from __future__ import annotations

import pytest
import torch
from fake_cuda_for_tests import needs_fake_cuda
from torch.utils._python_dispatch import _disable_current_modes

from fssbench import build_manifest, dataset
from fssbench.evaluation import measure
from fssbench.inference.chunk_loader import load_chunks
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.pipeline import Pipeline
from fssbench.metrics.iou import IoU
from fssbench.registry import registry
from fssbench.runtime.device import to_host
from fssbench.specs import ProtocolSpec
from fssbench.testing.fake_cuda import CUDA, FakeCuda
from fssbench.testing.matcher_subject import MatcherSubject

METHODS = ["prototype", "dcama", "hdmnet", "fsdino", "uinofss-comp", "uinofss"]


@needs_fake_cuda
@pytest.mark.parametrize(("shots", "batch_size"), [(1, 1), (2, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_one_wait_in_a_chunk(method, shots, batch_size, monkeypatch):
    """All other waits raise an error on such a device."""
    subject = MatcherSubject(name=method)
    shapes = dataset("shapes", images_per_split=60)
    protocol = registry().get(ProtocolSpec, "shapes/v1-1k")
    episodes = build_manifest(protocol, shapes, fold=0, shots=shots, limit=4).episodes
    fake = FakeCuda()
    pipeline = Pipeline(subject.made(), subject.backbone, device=torch.device("cpu"))
    cache = FeatureCache(pipeline, shapes, 1 << 30, batch_size=batch_size)
    tasks = list(cache.plan({0: episodes}))
    (data,) = load_chunks(tasks, shapes, pipeline.geometry, score_size="original", workers=0)
    pipeline.matcher = fake.module(pipeline.matcher)
    pipeline.backbone = fake.module(pipeline.backbone)
    pipeline.device, pipeline.encode_batch = CUDA, 16
    copied = []

    def counted(tensors):
        copied.append(list(tensors))
        with _disable_current_modes():
            return [torch.ones(t.shape, dtype=t.dtype) for t in tensors]

    monkeypatch.setattr(measure, "to_host", counted)
    monkeypatch.setattr(measure, "table_of", lambda episodes, columns: columns)
    with fake.computing():
        (result,) = measure.measure_chunks(
            fake.tensors([data]), pipeline.device, cache, [IoU()], batch_size=batch_size
        )
    assert len(copied) == 1
    assert {tensor.device.type for tensor in copied[0]} == {"cuda"}
    assert len(copied[0]) == 1 + len(IoU.columns) + len(episodes)
    assert list(result.rows) == list(IoU.columns)
    assert [tuple(each.shape) for each in result.predictions] == [
        tuple(target.shape) for target in data.targets
    ]


def test_tensors_of_several_types_in_one_copy():
    tensors = [
        torch.tensor([True, False, True]),
        torch.tensor([[1.5, -2.0]], dtype=torch.float64),
        torch.arange(3),
        torch.zeros(0, 4, dtype=torch.bool),
        torch.tensor([7, 9], dtype=torch.uint8),
    ]

    class There(torch.Tensor):
        """A tensor that claims to be on a GPU."""

        device = CUDA

    there = [tensor.as_subclass(There) for tensor in tensors]
    for found, expected in zip(to_host(there), tensors, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found.as_subclass(torch.Tensor), expected)
