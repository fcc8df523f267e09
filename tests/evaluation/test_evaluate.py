"""Evaluation: the rows, the record, resuming, and what can go wrong."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import methods_for_tests
import numpy as np
import pandas
import program
import pytest
import torch

from fssbench import FssbenchError, Manifest, Predictor, Record, dataset
from fssbench.episodes.chunks import visiting_order
from fssbench.evaluation import evaluate as evaluate_module
from fssbench.evaluation.evaluate import evaluate
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.results.rows import read_rows

PLUGIN = methods_for_tests.__file__

COLUMNS = [
    "index",
    "class_id",
    "query",
    "intersection_fg",
    "union_fg",
    "intersection_bg",
    "union_bg",
]


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return program.run(*arguments, env=environment)


def small(out: Path, *more: str, matcher: str = "mixer") -> list[str]:
    return [
        "evaluate", matcher, "-p", PLUGIN, "--backbone", "pixels", "-d", "images_per_split=120",
        "--fold", "0", "--limit", "80", "--workers", "0", "--out", str(out), *more,
    ]  # fmt: skip


def rows_file(out: Path) -> Path:
    (path,) = out.rglob("rows.csv.gz")
    return path


def test_files_rows_and_record(job):
    (result,) = evaluate(job)
    names = sorted(p.name for p in result.folder.iterdir() if not p.name.startswith("."))
    assert names == ["manifest.jsonl.gz", "record.json", "rows.csv.gz", "run.json"]
    rows = read_rows(result.folder / "rows.csv.gz")
    assert list(rows.columns) == COLUMNS
    manifest = Manifest.read(result.folder / "manifest.jsonl.gz")
    assert list(rows["index"]) == list(range(80))
    assert list(rows["query"]) == [e.query for e in manifest.episodes]
    assert list(rows["class_id"]) == [e.class_id for e in manifest.episodes]
    assert Record.read(result.folder / "record.json") == result.record
    fields = json.loads((result.folder / "record.json").read_text())
    assert fields["manifest"]["digest"] == manifest.digest
    assert fields["protocol"] == "shapes/v1-1k"
    assert (fields["fold"], fields["shots"], fields["seed"]) == (0, 1, 0)
    assert (fields["matcher"], fields["backbone"]) == ("mixer", "pixels")
    assert fields["weights"]["source"] == "none"
    assert set(fields["scores"]) == {"miou", "fb_iou", "episode_miou"}
    low, high = fields["intervals"]["miou"]
    assert low < fields["scores"]["miou"] < high
    assert [c["class_id"] for c in fields["per_class"]] == [0, 1, 2, 3, 4]
    assert fields["environment"]["packages"]["torch"] == torch.__version__
    assert fields["cost"]["learnable_parameters"] == 0
    assert result.record.rankable == "only the first 80 episodes"


def test_rows_equal_a_plain_loop(job):
    """A whole evaluation against twenty lines without cache, batches, journal or workers."""
    (result,) = evaluate(attrs.evolve(job, matcher="prototype", options={"layer": "cells8"}))
    rows = read_rows(result.folder / "rows.csv.gz")
    manifest = Manifest.read(result.folder / "manifest.jsonl.gz")
    data = dataset("shapes", images_per_split=120)
    predictor = Predictor("prototype", "pixels", device="cpu", layer="cells8")
    for episode in manifest.episodes[::7]:
        (support,) = episode.support
        predictor.set_support(data.image(support)[None], data.mask(support, episode.class_id)[None])
        mask = predictor.predict(data.image(episode.query)).mask.numpy()
        truth = data.mask(episode.query, episode.class_id).numpy() == 1
        row = rows.iloc[episode.index]
        assert row["intersection_fg"] == np.sum(mask & truth)
        assert row["union_fg"] == np.sum(mask | truth)
        assert row["intersection_bg"] == np.sum(~mask & ~truth)
        assert row["union_bg"] == np.sum(~(mask & truth))


@pytest.mark.parametrize(
    "change",
    [{"workers": 2}, {"batch_size": 7}, {"batch_size": 20, "workers": 1}],
    ids=["workers", "batches", "both"],
)
def test_workers_and_batches_change_nothing(job, change, tmp_path):
    (one,) = evaluate(job)
    (other,) = evaluate(attrs.evolve(job, out=tmp_path / "other", **change))
    assert one.record.manifest.digest == other.record.manifest.digest
    first, second = (rows_file(r.folder).read_bytes() for r in (one, other))
    assert gzip.decompress(first) == gzip.decompress(second)


def test_a_small_cache_changes_nothing(job, tmp_path):
    (one,) = evaluate(attrs.evolve(job, matcher="masked"))
    small_cache = {"cache_memory": 1, "out": tmp_path / "other"}
    (other,) = evaluate(attrs.evolve(job, matcher="masked", **small_cache))
    assert rows_file(one.folder).read_bytes() == rows_file(other.folder).read_bytes()


def test_each_image_is_encoded_once(job, monkeypatch):
    made = []
    original = evaluate_module.Pipeline.__init__

    def spy(self, *arguments, **more):
        original(self, *arguments, **more)
        made.append(self.backbone)

    monkeypatch.setattr(evaluate_module.Pipeline, "__init__", spy)
    results = evaluate(attrs.evolve(job, folds=(0, 1), shots=(1, 2)))
    images = set()
    for result in results:
        for episode in Manifest.read(result.folder / "manifest.jsonl.gz").episodes:
            images |= {episode.query, *episode.support}
    counting_operations = 2  # one image for each number of shots
    assert made[0].seen == len(images) + counting_operations


def test_masked_supports_differ_from_whole_ones(job, tmp_path):
    (whole,) = evaluate(job)
    (masked,) = evaluate(attrs.evolve(job, matcher="masked", out=tmp_path / "m"))
    first, second = (read_rows(rows_file(r.folder)) for r in (whole, masked))
    assert not first.equals(second)


def test_all_cells_of_one_call(job):
    results = evaluate(attrs.evolve(job, folds=None, shots=(1, 2), seeds=(0, 1), limit=5))
    cells = {(r.record.fold, r.record.shots, r.record.seed) for r in results}
    assert cells == {(f, k, s) for f in range(4) for k in (1, 2) for s in (0, 1)}
    assert len({r.folder for r in results}) == 16


def test_scoring_at_the_input_size(job):
    (result,) = evaluate(attrs.evolve(job, protocol="shapes/input-size", limit=None))
    rows = read_rows(rows_file(result.folder))
    assert ((rows["union_bg"] + rows["intersection_fg"]) == 64 * 64).all()
    assert result.record.rankable == ""


def test_finished_runs_are_read_not_repeated(job):
    (first,) = evaluate(job)
    before = (first.folder / "record.json").read_bytes()
    (second,) = evaluate(job)
    assert not second.fresh
    assert second.record == first.record
    assert (first.folder / "record.json").read_bytes() == before


def test_other_settings_go_to_another_folder(job):
    (one,) = evaluate(job)
    for change in ({"weights": "random"}, {"batch_size": 2}, {"limit": 60}, {"matcher": "masked"}):
        (other,) = evaluate(attrs.evolve(job, **change))
        assert other.folder != one.folder
        assert other.fresh


@pytest.mark.parametrize("after", [25, 79])
def test_killed_and_resumed_equals_uninterrupted(tmp_path, after):
    """kill -9 in mid-run; the journal keeps whole chunks, the rest is done again."""
    # The same settings and plugins must go on: what kills is set by the environment.
    harmless = tmp_path / "harmless.py"
    harmless.write_text("import os\nif 'HARMLESS' in os.environ:\n    os.kill = lambda *_: None\n")
    settings = ["-p", str(harmless), "-o", "how=kill", "-o", f"after={after}"]
    killed = cli(*small(tmp_path / "a", *settings, matcher="badly"))
    assert killed.returncode == -9
    (journal_folder,) = {p.parent for p in (tmp_path / "a").rglob("run.json")}
    lines = (journal_folder / "journal.jsonl").read_text().splitlines() if after >= 20 else []
    assert len(lines) == after // 20
    assert not list((tmp_path / "a").rglob("record.json"))
    resumed = cli(*small(tmp_path / "a", *settings, matcher="badly"), HARMLESS="1")
    assert resumed.returncode == 0, resumed.stderr
    assert (f"resuming after {after // 20 * 20} episodes" in resumed.stderr) == (after >= 20)
    straight = cli(*small(tmp_path / "b", *settings, matcher="badly"), HARMLESS="1")
    assert straight.returncode == 0, straight.stderr
    assert rows_file(tmp_path / "a").read_bytes() == rows_file(tmp_path / "b").read_bytes()
    assert not list((tmp_path / "a").rglob("journal.jsonl"))


@pytest.mark.parametrize("damage", ["cut", "flip", "no newline"])
def test_damaged_journal_lines_are_done_again(job, damage, tmp_path):
    stopping = attrs.evolve(job, matcher="badly", options={"after": "45"})
    with pytest.raises(FssbenchError, match="NaN"):
        evaluate(stopping)
    (journal,) = job.out.rglob("journal.jsonl")
    data = journal.read_bytes()
    assert data.count(b"\n") == 2
    if damage == "cut":
        journal.write_bytes(data[:-30])
    elif damage == "flip":
        journal.write_bytes(data.replace(b'"chunk":0', b'"chunk":7'))
    else:
        journal.write_bytes(data.rstrip(b"\n"))
    original = methods_for_tests.Badly.segment
    methods_for_tests.Badly.segment = methods_for_tests.Mixer.segment
    try:
        (resumed,) = evaluate(stopping)
    finally:
        methods_for_tests.Badly.segment = original
    (straight,) = evaluate(attrs.evolve(job, out=tmp_path / "straight"))
    assert rows_file(resumed.folder).read_bytes() == rows_file(straight.folder).read_bytes()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", r"episode {} \(class \d, query val-\d+\): segment gave logits that are NaN"),
        ("shape", r"episode {} .* shape \(1, 1, 16, 16\); expected \(1, h, w\)"),
    ],
)
def test_a_matcher_that_fails_its_contract_is_named_with_the_episode(job, how, message):
    (fine,) = evaluate(job)
    manifest = Manifest.read(fine.folder / "manifest.jsonl.gz")
    fourth = visiting_order(manifest.episodes)[3]
    with pytest.raises(FssbenchError, match=message.replace("{}", str(fourth.index))):
        evaluate(attrs.evolve(job, matcher="badly", options={"how": how, "after": "3"}))


def test_two_runs_in_one_directory(tmp_path):
    slow = small(tmp_path, "-o", "how=slow", matcher="badly")
    first = program.start(*slow)
    try:
        while not list(tmp_path.rglob("journal.jsonl")):
            assert first.poll() is None
        first.send_signal(signal.SIGSTOP)  # else it may end while the second one starts
        second = cli(*slow)
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 2
    assert "another process uses this run folder" in second.stderr
    assert second.stderr.count("\n") == 1


def test_a_directory_of_another_run(job):
    (result,) = evaluate(job)
    identity = json.loads((result.folder / "run.json").read_text())
    identity["torch"] = "1.0"
    (result.folder / "run.json").write_text(json.dumps(identity))
    with pytest.raises(FssbenchError, match=r'differs in torch \(torch: "1.0" in the folder'):
        evaluate(job)


def test_unreadable_run_directories(job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FssbenchError, match="cannot use this folder: Not a directory"):
        evaluate(attrs.evolve(job, out=tmp_path / "file"))
    (result,) = evaluate(job)
    (result.folder / "run.json").write_text("{")
    with pytest.raises(FssbenchError, match=r"run\.json: cannot read the identity of the run"):
        evaluate(job)


def test_full_disk_is_one_line_and_loses_nothing(job, monkeypatch, tmp_path):
    flushed = []

    def flush(handle):
        flushed.append(handle)
        if len(flushed) == 5:  # manifest, run.json, two chunks; the third finds the disk full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", flush)
    message = r"journal\.jsonl: cannot write: No space left on device; nothing finished is lost"
    with pytest.raises(FssbenchError, match=message):
        evaluate(job)
    monkeypatch.undo()
    (journal,) = job.out.rglob("journal.jsonl")
    assert journal.read_bytes().count(b"\n") >= 2
    (resumed,) = evaluate(job)
    (straight,) = evaluate(attrs.evolve(job, out=tmp_path / "straight"))
    assert rows_file(resumed.folder).read_bytes() == rows_file(straight.folder).read_bytes()


@pytest.mark.slow
def test_file_size_limit_stops_with_one_line(tmp_path):
    """The same with a real error of the system: files may not grow beyond 3 kB."""
    code = (
        "import resource, sys; from fssbench.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *small(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "journal.jsonl: cannot write: " in done.stderr.splitlines()[-1]
    assert cli(*small(tmp_path)).returncode == 0
    # In a new interpreter, so that the hashes of strings differ too.
    straight = [sys.executable, "-m", "fssbench", *small(tmp_path / "straight")]
    subprocess.run(straight, capture_output=True, check=True)
    cells = sorted(tmp_path.rglob("rows.csv.gz"))
    assert len(cells) == 2
    assert cells[0].read_bytes() == cells[1].read_bytes()


def test_missing_and_wrong_checkpoints(job, tmp_path):
    from fssbench import backbone, matcher

    learner = matcher("learner", backbone("pixels"))
    header = {"matcher": "learner", "backbone": "pixels", "config": {"width": 4}, "fold": 0,
              "dataset": "shapes"}  # fmt: skip
    good = tmp_path / "good.safetensors"
    write_checkpoint(good, learner, header)
    (result,) = evaluate(attrs.evolve(job, matcher="learner", checkpoint=good))
    assert result.record.checkpoint.header["fold"] == 0
    assert result.record.cost.learnable_parameters == 4

    def fails(message, path=good, **change):
        with pytest.raises(FssbenchError, match=message):
            evaluate(attrs.evolve(job, checkpoint=path, **{"matcher": "learner", **change}))

    fails("it was trained as matcher 'learner', not 'mixer'", matcher="mixer")
    fails("has seen the classes of fold 1; evaluate --fold 0", folds=(0, 1))
    fails("there is no such file", path=tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    fails("this is no checkpoint of fssbench", path=tmp_path / "text")
    write_checkpoint(tmp_path / "b", learner, {**header, "config": {"width": 5}})
    fails(r"it has bias \(4,\) instead of \(5,\)", path=tmp_path / "b")
    write_checkpoint(tmp_path / "c", matcher("mixer", backbone("pixels")), header)
    fails("it lacks bias", path=tmp_path / "c")
    write_checkpoint(tmp_path / "d", learner, {"matcher": "learner"})
    fails("this is no checkpoint of fssbench", path=tmp_path / "d")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matcher": "protoype"}, "no matcher is called 'protoype'; did you mean 'prototype'"),
        ({"backbone": "pixel"}, "no backbone is called 'pixel'; did you mean 'pixels'"),
        ({"protocol": "shapes/v2"}, "no protocol is called 'shapes/v2'; did you mean"),
        ({"folds": (4,)}, "shapes has no fold 4; it has folds 0 to 3"),
        ({"options": {"size": "3"}}, "mixer takes no options, but was given size"),
        ({"data_options": {"image_size": "3"}}, "shapes has no option 'image_size'"),
        ({"workers": -1}, "--workers must be at least 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"device": "gpu"}, "--device gpu: use auto, cpu or cuda"),
        ({"device": "cuda:77"}, "no such GPU"),
        ({"matcher": "prototype", "options": {"size": "63"}}, "multiple of 8, not 63"),
        ({"matcher": "prototype", "options": {"layer": "cell8"}}, "no layer 'cell8'; did you mean"),
        ({"shots": (200,)}, "every class needs 201 images"),
    ],
)
def test_wrong_input_is_one_clear_line(job, change, message):
    with pytest.raises(FssbenchError, match=message) as caught:
        evaluate(attrs.evolve(job, **change))
    assert "\n" not in str(caught.value)


def test_random_weights_never_rank(job):
    (result,) = evaluate(
        attrs.evolve(job, weights="random", protocol="shapes/input-size", limit=None)
    )
    assert result.record.rankable == "random weights"


def test_third_party_observers_are_called(job, tmp_path):
    from fssbench import registry

    log = tmp_path / "log"
    observer = tmp_path / "watching_plugin.py"
    observer.write_text(
        "from pathlib import Path\n"
        f"log = Path({str(log)!r})\n"
        "def say(text):\n"
        "    log.write_text((log.read_text() if log.exists() else '') + text + '\\n')\n"
        "def fssbench_evaluation_started(run):\n"
        "    say(f'start {run.manifest.fold}')\n"
        "def fssbench_episodes_measured(chunk, rows, predictions):\n"
        "    first = predictions[0]\n"
        "    say(f'chunk {chunk} {len(rows)} {first.dtype} {tuple(first.shape)}')\n"
        "def fssbench_evaluation_finished(record):\n"
        "    say(f'end {record.matcher}')\n"
    )
    registry.use_plugins([PLUGIN, str(observer)])
    evaluate(attrs.evolve(job, limit=25))
    assert log.read_text().splitlines() == [
        "start 0", "chunk 0 20 torch.bool (160, 160)", "chunk 1 5 torch.bool (160, 160)",
        "end mixer",
    ]  # fmt: skip


def test_rows_of_strange_query_names_survive(tmp_path):
    from fssbench.results.rows import write_rows

    rows = pandas.DataFrame(
        {"index": [0, 1, 2], "class_id": [0, 0, 0], "query": ["00012", "NA", 'a,"b"']}
    )
    write_rows(rows, tmp_path / "rows.csv.gz")
    assert list(read_rows(tmp_path / "rows.csv.gz")["query"]) == ["00012", "NA", 'a,"b"']
    (tmp_path / "rows.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(FssbenchError, match="cannot read these rows|damaged"):
        read_rows(tmp_path / "rows.csv.gz")


def test_bf16_is_recorded_and_close(job, tmp_path):
    job = attrs.evolve(job, matcher="prototype", backbone="tiny-resnet", limit=8)
    (exact,) = evaluate(job)
    (half,) = evaluate(attrs.evolve(job, precision="bf16"))
    assert half.record.environment["precision"] == "bf16"
    assert half.folder != exact.folder
    assert half.record.scores["miou"] == pytest.approx(exact.record.scores["miou"], abs=2.0)
