"""The side-by-side run of the benchmarks, on a small encoder: it runs, and the rows are equal."""

from __future__ import annotations

import torch
from bench_data import Photographs, episodes_like_pascal
from plain_loop import apart, plain_episode
from test_evaluation import cached_rows

from fssbench import build
from fssbench.inference.pipeline import Pipeline


def test_rows_of_the_plain_loop_are_those_of_an_evaluation(tmp_path):
    images, episodes = episodes_like_pascal(6, 1)
    encoder = build.backbone("filterbank")
    pipeline = Pipeline(
        build.matcher("prototype", encoder), encoder, device=torch.device("cpu"), precision="fp32"
    )
    dataset = Photographs(tmp_path, images)
    plain = {each.index: plain_episode(pipeline, dataset, each) for each in episodes}
    measured = []
    rows, spent = cached_rows(pipeline, dataset, episodes, measured.append)
    assert rows.keys() == plain.keys()
    assert apart(plain, rows) == 0
    assert len(measured) == len(set(measured)) > 1
    assert spent.cpu > 0
