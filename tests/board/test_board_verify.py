"""Verification of records by measuring some of their episodes again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import methods_for_tests
import pytest
import rings_for_tests
import scipy.stats
from records_for_tests import change_record
from registered_for_tests import registered

from fssbench import Evaluation, FssbenchError, Manifest, build
from fssbench.cli import _run
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.reproduce import Rerun, draw_sample, verify_record
from fssbench.evaluation.reproduction import SAME, compare_rows
from fssbench.files import sha256
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.metrics.iou import IoU
from fssbench.results import result as results
from fssbench.results.record import Record
from fssbench.results.rows import read_rows, write_rows

PLUGINS = [methods_for_tests.__file__, rings_for_tests.__file__]
LOAD = [part for name in PLUGINS for part in ("-p", name)]
HERE = ["--workers", "0", "--device", "cpu"]
ALL = Rerun(episodes=1000, device="cpu", workers=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Finished runs by their settings, each made once."""
    folder = tmp_path_factory.mktemp("runs")
    done: dict[str, Path] = {}

    def make(**changes) -> Path:
        if repr(changes) not in done:
            settings = {"matcher": "greyest", "backbone": "pixels", "protocol": "rings/v1",
                        **changes}  # fmt: skip
            job = Evaluation(workers=0, device="cpu", out=folder / str(len(done)), **settings)
            done[repr(changes)] = evaluate(job)[0].folder
        return done[repr(changes)]

    return make


plugin = registered(methods_for_tests, rings_for_tests)


@pytest.fixture
def run(made, tmp_path):
    """A copy of a run, to be damaged."""
    return lambda **changes: shutil.copytree(made(**changes), tmp_path / "run")


@pytest.fixture
def verify(capsys):
    """Run the command and return exit code, stdout and stderr."""

    def call(*arguments: object):
        code = _run(["board", "verify", *map(str, arguments), *HERE, *LOAD])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def fails(verify):
    """Return the single line of a command that ends with exit code 2."""

    def call(*arguments: object) -> str:
        code, out, err = verify(*arguments)
        assert code == 2, (out, err)
        (line,) = err.splitlines()
        return line

    return call


def tamper(folder: Path, index: int = 12, pixels: int = 5) -> None:
    """Improve one row, and adapt all other files, so that only a model can detect it."""
    rows = read_rows(folder / "rows.csv.gz")
    rows.loc[index, "intersection_fg"] += pixels
    rows.loc[index, "union_bg"] -= pixels
    write_rows(rows, folder / "rows.csv.gz")
    record = Record.read(folder / "record.json")
    table = IoU().per_class(rows)
    per_class = [
        attrs.evolve(
            entry,
            iou=float(table["iou"][entry.class_id]),
            background_iou=float(table["background_iou"][entry.class_id]),
        )
        for entry in record.per_class
    ]
    scores = {**record.scores, **IoU().summarise(rows)}
    attrs.evolve(record, scores=scores, per_class=tuple(per_class)).write(folder)


# --- records that stand ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shots": (5,)},
        {"batch_size": 7},
        {"limit": 25},
        {"matcher": "nothing"},
        {"protocol": "rings/input"},
        {"weights": "random"},
        {"metrics": ("boundary", "regions", "covered")},
        {"matcher": "prototype", "options": {"layer": "cells8"}},
        {"precision": "bf16"},
        {"cache_half": True},
    ],
    ids=lambda change: ",".join(change) or "default",
)
def test_an_honest_record_stands(made, change):
    verdict = verify_record(made(**change), attrs.evolve(ALL, episodes=11))
    assert verdict.stands
    assert (verdict.problems, verdict.differences) == ((), ())
    assert len(verdict.sample) == 11
    assert verdict.changed == ()
    assert verdict.tolerance == 0


def test_rounded_features_are_rounded_again(verify, made):
    folder = made(cache_half=True)
    code, out, _ = verify(folder, "--episodes", 2)
    assert code == 0
    assert out.count("float16") == 2  # then and now
    assert "float16" not in verify(made(), "--episodes", 2)[1]


def test_messages_of_the_verification(verify, made):
    code, out, err = verify(made(), "--episodes", 10, "--seed", 4)
    assert code == 0, err
    assert "greyest on pixels, rings/v1, fold 0, 1-shot, seed 0" in out
    for name in ("device", "hardware", "threads", "precision", "batch size", "torch", "fssbench"):
        assert f"│ {name} " in out
    assert "Measured again: 10 of 30 episodes, drawn with seed 4." in out
    assert "Counts must be equal to the pixel." in out
    assert "finds a change with 95 % certainty where 7 rows or more were changed" in out
    assert out.splitlines()[-1] == "The record stands."


def test_as_json_and_by_the_file(verify, made):
    code, out, _ = verify(made() / "record.json", "--episodes", 10, "--seed", 4, "--json")
    fields = json.loads(out)
    assert code == 0
    assert fields["stands"] is True
    assert fields["sample"] == list(draw_sample(30, 10, 4))
    # The commit is told too; somebody may commit between the two.
    assert all(fields["then"][name] == fields["now"][name] for name in SAME)
    assert fields["then"]["precision"] == "fp32"
    assert fields["differences"] == []


def test_an_entry_of_a_board(verify, made, tmp_path):
    assert _run(["board", "build", str(made()), "--out", str(tmp_path / "boards"), *LOAD]) == 0
    (record,) = (tmp_path / "boards" / "results").rglob("record.json")
    assert verify(record.parent, "--episodes", 5)[0] == 0


def test_a_committed_entry():
    """A result of the repository's boards: the embedded benchmark, a backbone without weights."""
    repository = Path(__file__).parents[2]
    results = repository / "leaderboards" / "results" / "shapes" / "v1-1k"
    folder = min(results.glob("prototype--filterbank--*/fold0-1shot-seed0"))
    verdict = verify_record(folder, attrs.evolve(ALL, episodes=3))
    assert verdict.stands, verdict.differences


def test_each_file_is_read_once(made, monkeypatch):
    """Verification and comparison use the same state of a file."""
    read = []
    for kind, name in ((Record, "record.json"), (Manifest, "manifest.jsonl.gz")):
        monkeypatch.setattr(kind, "read", counted(kind.read, name, read))
    monkeypatch.setattr(results, "read_rows", counted(results.read_rows, "rows.csv.gz", read))
    assert verify_record(made(), attrs.evolve(ALL, episodes=1)).stands
    assert sorted(read) == ["manifest.jsonl.gz", "record.json", "rows.csv.gz"]


def counted(function, name, calls):
    """Return the function, extended to record its calls."""

    def call(*arguments):
        calls.append(name)
        return function(*arguments)

    return call


def test_each_time_another_sample():
    assert draw_sample(1000, 50, 1) == draw_sample(1000, 50, 1) != draw_sample(1000, 50, 2)
    assert draw_sample(7, 50, 0) == tuple(range(7))
    with pytest.raises(FssbenchError, match="--seed must be at least 0"):
        draw_sample(7, 5, -1)


@pytest.mark.parametrize("sample", [1, 10, 29, 30])
def test_how_many_changes_a_sample_finds(made, sample):
    verdict = verify_record(made(), attrs.evolve(ALL, episodes=1))
    verdict = attrs.evolve(verdict, sample=tuple(range(sample)))
    none = [scipy.stats.hypergeom(30, changed, sample).pmf(0) for changed in range(31)]
    assert none[verdict.detectable_rows] <= 0.05 < none[verdict.detectable_rows - 1]


# --- records that do not --------------------------------------------------------------------------


def test_a_tampered_row_that_everything_else_fits(run, verify):
    folder = run()
    tamper(folder)
    code, out, _ = verify(folder, "--episodes", 30)
    assert code == 1
    (line,) = (line for line in out.splitlines() if line.lstrip().startswith("12 "))
    assert line.split()[1] in ("dark", "bright")
    assert line.split()[-2:] == ["5", "0"]
    assert "1 rows differ, 1 of them by more than is allowed." in out
    assert out.splitlines()[-1] == "The record does not stand."


def test_an_untouched_sample_of_a_tampered_record(run):
    """Only the sample is verified."""
    folder = run()
    tamper(folder, index=12)
    seeds = [s for s in range(20) if 12 not in draw_sample(30, 5, s)]
    assert verify_record(folder, attrs.evolve(ALL, episodes=5, seed=seeds[0])).stands
    seeds = [s for s in range(20) if 12 in draw_sample(30, 5, s)]
    assert not verify_record(folder, attrs.evolve(ALL, episodes=5, seed=seeds[0])).stands


def test_a_tampered_row_alone(run, verify):
    folder = run()
    rows = read_rows(folder / "rows.csv.gz")
    rows.loc[3, "intersection_fg"] = rows.loc[3, "union_fg"]
    write_rows(rows, folder / "rows.csv.gz")
    code, out, _ = verify(folder, "--episodes", 1, "--seed", 0)
    assert code == 1
    assert "Wrong: " in out
    assert "scores.miou is" in out


def test_an_edited_score(run, verify):
    folder = run()
    change_record(folder, "scores", "miou", value=99.0)
    code, out, _ = verify(folder, "--episodes", 2)
    assert code == 1
    assert "scores.miou is 99.000000, the rows give" in out
    assert "All rows are the same." in out


def test_rows_of_other_episodes(run, verify):
    folder = run()
    rows = read_rows(folder / "rows.csv.gz")
    write_rows(rows.iloc[::-1], folder / "rows.csv.gz")
    code, out, _ = verify(folder)
    assert code == 1
    assert "line 2 is not episode 0 of the manifest" in out
    assert "No episode was measured again" in out


def test_episodes_that_the_protocol_does_not_draw(run, verify):
    """Chosen supports, in a manifest with a valid digest."""
    folder = run()
    manifest = Manifest.read(folder / "manifest.jsonl.gz")
    first, second, *rest = manifest.episodes
    spare = next(e.support for e in rest if e.class_id == first.class_id
                 and not {first.query, *first.support} & set(e.support))  # fmt: skip
    episodes = (attrs.evolve(first, support=spare), second, *rest)
    manifest = attrs.evolve(manifest, episodes=episodes)
    manifest.write(folder / "manifest.jsonl.gz")
    change_record(folder, "manifest", "digest", value=manifest.digest)
    code, out, _ = verify(folder)
    assert code == 1
    assert "is not what rings/v1 draws from this data" in out


def test_a_metric_of_a_plugin_is_compared_too(run):
    folder = run(metrics=("covered",))
    rows = read_rows(folder / "rows.csv.gz")
    rows["covered"] += 0.25
    write_rows(rows, folder / "rows.csv.gz")
    score = json.loads((folder / "record.json").read_text())["scores"]["covered"]
    change_record(folder, "scores", "covered", value=score + 25)
    verdict = verify_record(folder, attrs.evolve(ALL, episodes=3))
    assert verdict.problems == ()
    assert len(verdict.differences) == 3
    for each in verdict.differences:
        ((name, (then, now)),) = each.columns.items()
        assert (name, each.pixels, each.within) == ("covered", 0, False)
        assert then - now == pytest.approx(0.25)


# --- other conditions -----------------------------------------------------------------------------


def test_other_hardware_has_a_tolerance(run, verify):
    folder = run()
    change_record(folder, "environment", "hardware", value="[bold]Abacus")
    code, out, _ = verify(folder, "--episodes", 4)
    assert code == 0
    assert "[bold]Abacus" in out
    assert "Changed conditions: hardware." in out
    assert "Counts may differ by 0.0001 of an image's pixels, one in 10,000." in out
    # 5 of 2,000 pixels are more than one in 10,000.
    tamper(folder)
    assert verify(folder, "--episodes", 30)[0] == 1
    code, out, _ = verify(folder, "--episodes", 30, "--tolerance", 0.01)
    assert code == 0
    assert "1 rows differ, 0 of them by more than is allowed." in out
    assert verify(folder, "--episodes", 30, "--tolerance", 0)[0] == 1


def test_where_the_tolerance_ends(made):
    folder = made(metrics=("covered",))
    stored = read_rows(folder / "rows.csv.gz")
    manifest = Manifest.read(folder / "manifest.jsonl.gz")
    total = int(stored.loc[7, "union_bg"] + stored.loc[7, "intersection_fg"])
    now = stored.loc[[7]].copy()
    now["intersection_fg"] += 2
    now["union_bg"] -= 2
    now["covered"] += 0.001  # follows from the pixels, and is not judged beside them
    (exact,) = compare_rows(stored, now, manifest, 2 / total + 1e-12)
    assert (exact.pixels, exact.allowed, exact.within) == (2, 2, True)
    assert set(exact.columns) == {"intersection_fg", "union_bg", "covered"}
    (less,) = compare_rows(stored, now, manifest, 1.9 / total)
    assert (less.allowed, less.within) == (1, False)


# --- what the caller can mend ---------------------------------------------------------------------


@pytest.fixture
def trained(made, tmp_path):
    """(run, checkpoint file)"""
    path = tmp_path / "trained.safetensors"
    matcher = build.matcher("greyest", "pixels")
    matcher.threshold.data += 0.05
    header = {"matcher": "greyest", "backbone": "pixels", "config": {}, "dataset": "rings"}
    write_checkpoint(path, matcher, header)
    return made(checkpoint=path), path


def test_checkpoints(trained, verify, fails, tmp_path, made):
    folder, path = trained
    assert verify(folder, "--checkpoint", path, "--episodes", 3)[0] == 0
    said = fails(folder)
    assert f"'trained.safetensors' (sha256 {sha256(path)[:12]}…); give it with --checkpoint" in said
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, build.matcher("greyest", "pixels"), {
        "matcher": "greyest", "backbone": "pixels", "config": {}})  # fmt: skip
    said = fails(folder, "--checkpoint", other)
    assert f"its sha256 is {sha256(other)[:12]}…, the record is of 'trained.safetensors'" in said
    said = fails(folder, "--checkpoint", tmp_path / "none")
    assert "cannot be read: No such file" in said
    assert "the record is of a method without one" in fails(made(), "--checkpoint", path)


def test_weights_of_a_file(run, fails):
    folder = run()
    value = {"source": "file", "name": "mine.pt", "sha256": "ab" * 32}
    change_record(folder, "weights", value=value)
    assert "weights of a file, 'mine.pt' (sha256 abababababab…)" in fails(folder)
    said = fails(folder, "--weights", "pretrained")
    assert "the backbone's weights are none (sha256 -), the record's file 'mine.pt'" in said


def test_data(run, fails, tmp_path):
    folder = run(data_options={"shift": "1"})
    said = fails(folder)
    assert "these annotations" in said
    assert "give the --data-root and -d that it was made with" in said
    change_record(folder, "protocol", value="folder/v1")
    # PrepareObserver by the rows' check already; the data are asked for all the same.
    assert "folder" in fails(folder, "--data-root", tmp_path / "none")


@pytest.mark.parametrize("name", ["rows.csv.gz", "manifest.jsonl.gz"])
def test_missing_files(run, fails, name):
    folder = run()
    (folder / name).unlink()
    assert f"{name}: missing; verification needs record.json, rows.csv.gz" in fails(folder)


def test_damaged_files(run, fails):
    folder = run()
    (folder / "rows.csv.gz").write_bytes(b"no gzip")
    assert "cannot read these rows" in fails(folder)
    (folder / "record.json").write_text("{")
    assert "this is no record: not JSON" in fails(folder)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("matcher",), "elsewhere", "no matcher is called 'elsewhere'"),
        (("backbone",), "elsewhere", "no backbone is called 'elsewhere'"),
        (("protocol",), "elsewhere/v1", "no protocol is called 'elsewhere/v1'"),
        (("config",), {"resize": "squash", "more": 1}, "greyest has no option 'more'"),
        (("config",), {"resize": "squash"}, "the options fail_after of the installed version"),
        (("environment",), {}, "lacks the precision and batch size"),
        (("environment", "precision"), "fp8", "lacks the precision and batch size"),
        (("environment", "batch_size"), "many", "lacks the precision and batch size"),
    ],
)
def test_records_that_cannot_be_done_again_here(run, fails, keys, value, message):
    folder = run()
    change_record(folder, *keys, value=value)
    assert message in fails(folder)


def test_a_metric_that_is_not_installed(run, fails):
    folder = run()
    rows = read_rows(folder / "rows.csv.gz")
    rows["sharpness"] = 0.5
    write_rows(rows, folder / "rows.csv.gz")
    said = fails(folder)
    assert "the rows have 'sharpness', which no installed metric measures" in said
    assert "with -p" in said


def test_wrong_options(made, fails, tmp_path):
    assert "--episodes must be at least 1" in fails(made(), "--episodes", 0)
    assert "--seed must be at least 0" in fails(made(), "--seed", -1)
    assert "'--tolerance'" in fails(made(), "--tolerance", 2)
    assert "leave out --lists" in fails(made(), "--lists", tmp_path)
    assert "name a record.json, or the run directory" in fails(tmp_path / "none")
    assert "name one of the 1 below it" in fails(made().parent)
