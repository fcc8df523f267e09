"""Estimates: what is counted is what an evaluation then does."""

from __future__ import annotations

import json
from collections import Counter

import attrs
import methods_for_tests
import pytest

from fssbench.cli import _run
from fssbench.cli.grid import spell_bytes, spell_seconds
from fssbench.episodes.chunks import chunks_of
from fssbench.evaluation import evaluate as evaluate_module
from fssbench.evaluation.estimate import STEPS, estimate
from fssbench.evaluation.evaluate import evaluate, prepare
from fssbench.inference.pipeline import Pipeline


@pytest.fixture
def calls(monkeypatch):
    """How often each step of a pipeline is taken."""
    counted: Counter[str] = Counter()
    for step in STEPS:
        original = getattr(Pipeline, step)

        def spy(self, *arguments, _original=original, _step=step):
            counted[_step] += 1
            return _original(self, *arguments)

        monkeypatch.setattr(Pipeline, step, spy)
    return counted


@pytest.mark.parametrize("memory", [1 << 30, 100 << 10, 1])
@pytest.mark.parametrize("name", ["mixer", "masked", "prototype"])
@pytest.mark.parametrize("shots", [1, 3])
def test_steps_are_counted_as_they_are_taken(job, calls, monkeypatch, memory, name, shots):
    """The simulated run takes every step as often as the real one, whatever the budget."""
    from fssbench.evaluation import estimate as module

    monkeypatch.setattr(module, "_UNIT", 1)
    options = {"layer": "cells8"} if name == "prototype" else {}
    job = attrs.evolve(
        job, matcher=name, options=options, cache_memory=memory, limit=60, shots=(shots,)
    )
    evaluator = prepare(job)
    (manifest,) = evaluator.manifests()
    rates = module.measure_rates(evaluator, manifest)
    counted, _ = module.count_calls(evaluator, manifest, rates)
    calls.clear()
    for _ in evaluator.measure(chunks_of(manifest.episodes)):
        pass
    assert {step: counted[step] for step in STEPS} == {step: calls[step] for step in STEPS}


def test_an_estimate_adds_up_and_writes_nothing(job):
    jobs = [attrs.evolve(job, shots=(1, 2), folds=(0, 1))]
    found = estimate(jobs)
    assert not job.out.exists()
    assert [(e.fold, e.shots, e.episodes) for e in found] == [
        (0, 1, 80), (0, 2, 80), (1, 1, 80), (1, 2, 80),
    ]  # fmt: skip
    for each in found:
        assert each.images == each.distinct_images  # a quarter of this machine is enough
        assert 0 < each.cache_bytes <= each.memory_bytes
        assert each.seconds > 0
        assert each.disk_bytes == 0
    (manifest, *_) = prepare(jobs[0]).manifests()
    images = {i for e in manifest.episodes for i in (e.query, *e.support)}
    assert found[0].images == len(images)


def test_less_memory_takes_more_images(job):
    (plenty,) = estimate([job])
    (little,) = estimate([attrs.evolve(job, cache_memory=1)])
    assert little.images > plenty.images == little.distinct_images
    assert little.cache_bytes == 0


def test_finished_cells_take_nothing_and_disks_are_counted(job, tmp_path, monkeypatch):
    evaluate(job)
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_module.Pipeline, "encode", None)  # nothing is measured
        (done,) = estimate([job])
    assert (done.done, done.seconds, done.cache_bytes) == (True, 0.0, 0)
    (fresh,) = estimate([attrs.evolve(job, cache_dir=tmp_path / "features", seeds=(1,))])
    one = 3 * 16 * 16 * 4  # channels, cells of 64 / 4 px, float32
    assert fresh.disk_bytes == fresh.distinct_images * one


def test_the_command_line_says_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = ["-p", methods_for_tests.__file__]
    small = ["--backbone", "pixels", "-d", "images_per_split=120", "--limit", "20"]
    command = ["evaluate", "mixer", *plugin, *small, "--fold", "0,1", "--estimate"]
    assert _run([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["seconds"] == pytest.approx(sum(cell["seconds"] for cell in report["cells"]))
    assert len(report["cells"]) == 2
    (tmp_path / "grid.toml").write_text(
        "matchers = ['mixer', 'masked']\nbackbones = ['pixels']\nfolds = [0]\nlimit = 20\n"
        "data_options = { images_per_split = '120' }\ncache_memory = 1\n"
    )
    assert _run(["evaluate", *plugin, "--grid", "grid.toml", "--estimate"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("pixels") == 2
    assert "by number of such processes" in shown
    assert "encoded more than once, too little memory" in shown
    assert not (tmp_path / "runs").exists()


def test_units():
    assert [spell_seconds(s) for s in (12.34, 600, 7200, 86400 * 3)] == [
        "12.3 s", "10.0 min", "2.0 h", "3.0 days",
    ]  # fmt: skip
    assert [spell_bytes(b) for b in (5 << 20, 3 << 29, 1 << 41)] == ["5 MiB", "1.5 GiB", "2.0 TiB"]
