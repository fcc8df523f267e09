"""From a checkpoint to a record: what the header brings along, and what is refused."""

from __future__ import annotations

import attrs
import pytest

from fssbench import Evaluation, FssbenchError, evaluate, train
from fssbench.board.labels import Labels
from fssbench.results.method import method_identity


@pytest.fixture
def short(job):
    return attrs.evolve(job, steps=2, fold=1, options={"width": "4"})


@pytest.fixture
def evaluation(job):
    return Evaluation(
        data_options=job.data_options, limit=20, workers=0, device="cpu", out=job.out / "runs"
    )


def test_everything_comes_from_the_header(short, evaluation):
    result = train(short)
    (done,) = evaluate(evaluation, checkpoint=result.best)
    record = done.record
    assert (record.matcher, record.backbone, record.fold) == ("trainable", "pixels", 1)
    assert record.config["width"] == 4
    assert record.checkpoint.header["stage"] == "meta"
    with pytest.raises(FssbenchError, match="trained for fold 1.*--fold 1, or give --any-fold"):
        evaluate(evaluation, checkpoint=result.best, folds=(0,))
    (told,) = evaluate(evaluation, checkpoint=result.best, folds=(0,), any_fold=True)
    assert told.record.fold == 0
    with pytest.raises(FssbenchError, match="trained as backbone 'pixels', not 'tints'"):
        evaluate(evaluation, checkpoint=result.best, backbone="tints")


def test_other_weights_than_those_trained_on_are_refused(short, evaluation):
    result = train(short, weights="random")
    with pytest.raises(FssbenchError, match="trained on random weights .* these are none"):
        evaluate(evaluation, checkpoint=result.best)
    (done,) = evaluate(evaluation, checkpoint=result.best, weights="random")
    assert done.record.rankable == "random weights"


def test_folds_of_one_training_are_one_method(short, evaluation):
    records = [
        evaluate(evaluation, checkpoint=train(short, fold=fold).best)[0].record for fold in (0, 1)
    ]
    assert method_identity(records[0]) == method_identity(records[1])
    assert Labels(records[:1]).method(records) == "trainable (best.safetensors)"


def test_selection_on_novel_classes_is_marked(short, evaluation):
    house = evaluate(evaluation, checkpoint=train(short).best)[0].record
    habit_training = train(short, select_on="novel")
    habit = evaluate(evaluation, checkpoint=habit_training.best)[0].record
    assert habit.checkpoint.header["selected_on"] == "novel"
    assert habit.checkpoint.header["validation"]["on"] == "novel"
    assert method_identity(house) != method_identity(habit)
    assert "selected on novel classes" in Labels([habit]).method([habit])
    assert "novel" not in Labels([house]).method([house])
    last = evaluate(evaluation, checkpoint=habit_training.last)[0].record
    assert "novel" not in Labels([last]).method([last])
