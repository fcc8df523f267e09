"""Rows do not depend on processes, interruptions or order: episodes share nothing."""

from __future__ import annotations

import os
import signal
import sys

import attrs
import pandas
import pytest
import torch
from faults_for_tests import results, start

import fssbench
from fssbench import Evaluation, Manifest, Predictor, evaluate

OPTIONS = {"head": "none", "layers": ("layer3.2",), "iterations": 12}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Bits may depend on the number of threads, which is that of the machine's cores by default."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """80 episodes, four chunks."""
    return Evaluation(
        matcher="repri", backbone="tiny-resnet", options=OPTIONS, device="cpu", folds=(0,),
        shots=(2,), limit=80, workers=0, data_options={"images_per_split": "60"},
        save_predictions=True, out=tmp_path_factory.mktemp("runs") / "straight",
    )  # fmt: skip


@pytest.fixture(scope="module")
def straight(job):
    """Folder of the run of one process."""
    (outcome,) = evaluate(job)
    rows = pandas.read_csv(outcome.folder / "rows.csv.gz")
    assert (rows.intersection_fg > 0).mean() > 0.5
    return outcome.folder


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_processes(job, straight, tmp_path, processes):
    evaluate(attrs.evolve(job, devices=processes, out=tmp_path))
    assert results(tmp_path) == results(job.out)


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize("batch", [1, 3])
def test_kill_and_resume(job, straight, tmp_path, batch):
    run = attrs.evolve(job, out=tmp_path, batch_size=batch)

    class Killer:
        def fssbench_episodes_measured(self, chunk):
            os.kill(os.getpid(), signal.SIGKILL)

    child = start(lambda: evaluate(run, observers=lambda _: [Killer()]))
    code, message = child.wait()
    assert code == -signal.SIGKILL, message
    assert not list(tmp_path.rglob("rows.csv.gz"))
    evaluate(run)
    assert results(tmp_path) == results(job.out)


def test_reverse_order(straight):
    dataset = fssbench.dataset("shapes", images_per_split=60)
    predictor = Predictor("repri", "tiny-resnet", device="cpu", **OPTIONS)
    rows = pandas.read_csv(straight / "rows.csv.gz").set_index("index")
    for episode in reversed(Manifest.read(straight / "manifest.jsonl.gz").episodes[:30]):
        predictor.set_support(
            [dataset.image(image) for image in episode.support],
            [dataset.mask(image, episode.class_id) for image in episode.support],
        )
        found = predictor.predict(dataset.image(episode.query)).mask
        truth = dataset.mask(episode.query, episode.class_id)
        counted = torch.as_tensor(truth) != 255
        both = found & (truth == 1), (found | (truth == 1)) & counted
        row = rows.loc[episode.index]
        assert [int(each.sum()) for each in both] == [row.intersection_fg, row.union_fg]
