"""Tests of `fssbench evaluate` without arguments, and of the embedded benchmark."""

from __future__ import annotations

import pytest

from fssbench import Evaluation, evaluate


def mean_miou(tmp_path, protocol, **more):
    job = Evaluation(protocol=protocol, out=tmp_path, workers=0, **more)
    results = evaluate(job)
    assert len(results) == 4
    return sum(result.record.scores["miou"] for result in results) / 4


def check(tmp_path, **more):
    right = mean_miou(tmp_path, "shapes/v1-1k", **more)
    wrong = mean_miou(tmp_path, "shapes/v1-1k-wrong-mask", **more)
    five = mean_miou(tmp_path, "shapes/v1-1k", shots=(5,), **more)
    assert wrong <= right / 2, (right, wrong)
    assert five > right + 2, (right, five)
    return right


def test_the_support_mask_decides(tmp_path):
    """The mask of another class halves the mIoU at least; five supports score above one."""
    assert check(tmp_path, limit=30, data_options={"images_per_split": "160"}) > 25


@pytest.mark.slow
def test_the_support_mask_decides_over_all_episodes(tmp_path):
    assert check(tmp_path) > 25


@pytest.mark.slow
def test_weights_matter(tmp_path):
    """Bundled weights score above hand-made filters, and these above random weights."""
    limit = {"limit": 200}
    shipped = mean_miou(tmp_path, "shapes/v1-1k", **limit)
    filters = mean_miou(tmp_path, "shapes/v1-1k", backbone="filterbank", **limit)
    random = mean_miou(tmp_path, "shapes/v1-1k", weights="random", **limit)
    assert shipped > filters + 5
    assert shipped > random + 5
