"""Scoring finished runs by further metrics."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import shutil

import methods_for_tests
import pytest
import rings_for_tests
from records_for_tests import change_record

from fssbench import Evaluation, registry
from fssbench.evaluation import rescore as score
from fssbench.evaluation.evaluate import evaluate
from fssbench.results.predictions import PREDICTIONS_FILE
from fssbench.results.rows import read_rows, write_rows

PLUGINS = [methods_for_tests.__file__, rings_for_tests.__file__]
LOAD = [part for name in PLUGINS for part in ("-p", name)]
METRICS = ("boundary", "regions", "covered")


def evaluated(out, **changes):
    registry.use_plugins(PLUGINS)
    settings = {"matcher": "greyest", "protocol": "rings/v1", "save_predictions": True, **changes}
    (result,) = evaluate(
        Evaluation(backbone="pixels", workers=0, device="cpu", out=out, **settings)
    )
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run with saved masks."""
    result = evaluated(tmp_path_factory.mktemp("made"))
    registry.use_plugins([])
    return result.folder


@pytest.fixture
def finished(made, tmp_path):
    """A copy of the run, to be modified."""
    return shutil.copytree(made, tmp_path / "finished")


@pytest.fixture
def quick(monkeypatch):
    """Use few replicates for intervals in tests of scores."""
    few = functools.partial(score.resampled_intervals, resamples=100)
    monkeypatch.setattr(score, "resampled_intervals", few)


def metrics_of(out: str) -> dict[str, dict]:
    return json.loads(out)["metrics"]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shots": (5,)},
        {"protocol": "rings/void"},
        {"protocol": "rings/input"},
        {"options": {"resize": "letterbox"}, "protocol": "rings/input"},
        {"matcher": "nothing"},
        {"batch_size": 4},
    ],
    ids=["1 shot", "5 shots", "void", "input size", "letterbox", "empty masks", "batches"],
)
def test_masks_give_what_evaluate_measures(run, tmp_path, quick, change):
    """Padding of batches, ignored pixels and sizes are those of the evaluation."""
    folder = evaluated(tmp_path / "kept", **change).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    direct = evaluated(
        tmp_path / "direct", metrics=METRICS, save_predictions=False, **change
    ).record.scores
    code, out, err = run("score", folder, "--metric", ",".join(METRICS), "--json", *LOAD)
    assert code == 0, err
    found = metrics_of(out)
    assert list(found) == list(METRICS)
    assert {each["source"] for each in found.values()} == {"predictions"}
    scores = {name: value for each in found.values() for name, value in each["scores"].items()}
    assert set(scores) == {"j", "f", "j_and_f", "rom", "rum", "covered"}
    for name, value in scores.items():
        assert value == pytest.approx(direct[name], abs=1e-9), name
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_from_rows_where_they_hold_it(run, tmp_path, quick):
    """A measured metric is summarised from its columns, without masks and dataset."""
    result = evaluated(tmp_path, metrics=METRICS, save_predictions=False)
    names = ",".join(("iou", *METRICS))
    # An unknown option of the dataset would raise an error if it were opened.
    code, out, err = run("score", result.folder, "--metric", names, "--json", "-d", "no=1", *LOAD)
    assert code == 0, err
    found = metrics_of(out)
    assert {each["source"] for each in found.values()} == {"rows"}
    scores = {name: value for each in found.values() for name, value in each["scores"].items()}
    assert scores == pytest.approx(dict(result.record.scores))
    for name, ends in result.record.intervals.items():
        assert found["iou"]["intervals"][name] == pytest.approx(list(ends))
    for each in found.values():
        for name, (low, high) in each["intervals"].items():
            assert low <= each["scores"][name] <= high


def test_aliases_and_a_table_for_people(run, made, quick):
    code, out, _ = run("score", made, "--metric", "fb-iou,davis,miou", *LOAD)
    assert code == 0
    assert "greyest on pixels, rings/v1, fold 0, 1-shot, 30 episodes" in out
    assert out.count("fb_iou") == 1
    lines = {line.split("│")[1].strip(): line for line in out.splitlines() if "│" in line}
    assert lines["miou"].split("│")[4].strip() == "rows"
    assert lines["j_and_f"].split("│")[4].strip() == "predictions"
    assert " to " in lines["j_and_f"]


def test_scores_beside_the_record(run, finished, fails, quick):
    record = (finished / "record.json").read_bytes()
    out_file = finished / "scores.json"
    for metric in ("boundary", "regions"):  # the second replaces the first
        code, out, _ = run("score", finished / "record.json", "--metric", metric, "--out", out_file,
                           *LOAD)  # fmt: skip
        assert code == 0
        assert f"Scores: {out_file}" in out
        fields = json.loads(out_file.read_text())
        assert list(fields["metrics"]) == [metric]
    assert fields["fssbench_scores"] == 1
    assert fields["manifest"] == json.loads(record)["manifest"]["digest"]
    assert str(finished) not in out_file.read_text()
    said = fails("score", finished, "--metric", "iou", "--out", finished / "record.json", *LOAD)
    assert "record.json: this file exists and is not a scores file; choose another" in said
    said = fails("score", finished, "--metric", "iou", "--out", finished / "rows.csv.gz", *LOAD)
    assert "not a scores file" in said
    assert (finished / "record.json").read_bytes() == record


def test_one_clear_line_where_masks_are_needed(fails, tmp_path):
    folder = evaluated(tmp_path, save_predictions=False).folder
    assert fails("score", folder, "--metric", "boundary,iou", *LOAD) == (
        f"fssbench: error: {folder}: metric boundary needs predictions: the rows have no column "
        "region_j, boundary_f, and this run saved no masks; run the same fssbench evaluate command "
        "again with --save-predictions, and score the run directory that it names"
    )


def test_damaged_masks(fails, finished):
    path = finished / PREDICTIONS_FILE
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert PREDICTIONS_FILE in said
    assert "damaged" in said or "does not fit the digest" in said
    path.unlink()
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "cannot read these predictions: No such file" in said


def forged(finished, change):
    """Masks that do not match the digest in the record."""
    path = finished / PREDICTIONS_FILE
    content = change(gzip.decompress(path.read_bytes()).decode()).encode()
    path.write_bytes(gzip.compress(content))
    digest = hashlib.sha256(content).hexdigest()
    change_record(finished, "predictions", value=digest)


def test_masks_of_another_run(fails, finished, tmp_path):
    other = evaluated(tmp_path / "other", matcher="nothing").folder
    text = gzip.decompress((other / PREDICTIONS_FILE).read_bytes()).decode()
    forged(finished, lambda _: text)
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "the mask of episode 0 has " in said
    assert "masks and rows are of different runs" in said


def test_masks_of_other_episodes(fails, finished):
    digest = json.loads((finished / "record.json").read_text())["manifest"]["digest"]
    forged(finished, lambda text: text.replace(digest, "0" * 64))
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "these predictions belong to another manifest" in said


def test_masks_that_lack_an_episode_or_have_another_size(fails, finished):
    forged(finished, lambda text: text.replace('"index":7,', '"index":700,'))
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "there is no predicted mask of episode 7; evaluate again" in said
    forged(finished, lambda text: text.replace('"size":[40,56]', '"size":[4000000,5600000]'))
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "has the size [4000000, 5600000], its image [40, 56]" in said


def test_rows_that_were_changed(fails, finished):
    rows = read_rows(finished / "rows.csv.gz")
    rows.loc[5, "union_bg"] += 1
    write_rows(rows, finished / "rows.csv.gz")
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "the mask of episode 5 has union_bg" in said
    write_rows(rows.drop(index=5), finished / "rows.csv.gz")
    said = fails("score", finished, "--metric", "iou", *LOAD)
    assert "29 rows for the manifest's 30 episodes" in said


def test_another_dataset(fails, finished):
    said = fails("score", finished, "--metric", "boundary", "-d", "shift=2", *LOAD)
    assert "these annotations" in said
    assert "give the --data-root and -d that it was made with" in said


def test_features_that_make_no_size(fails, finished):
    change_record(finished, "features", value={"size": "big", "resize": "squash"})
    said = fails("score", finished, "--metric", "boundary", *LOAD)
    assert "features.size or features.resize is wrong" in said


def test_wrong_input(fails, made, finished, tmp_path):
    def says(*arguments):
        return fails("score", *arguments, *LOAD)

    assert "no metric is called 'boundry'; did you mean 'boundary'" in says(
        made, "--metric", "boundry"
    )
    assert "name at least one metric; registered: boundary, covered" in says(made, "--metric", ",")
    assert "Missing option '--metric'" in says(made)
    assert "name a record.json, or the run directory" in says(tmp_path / "no", "--metric", "iou")
    rows = made / "rows.csv.gz"
    assert "name a record.json, or the run directory" in says(rows, "--metric", "iou")
    above = made.parents[1]
    assert f"name one of the 1 below it, e.g. {made}" in says(above, "--metric", "iou")
    (tmp_path / "empty").mkdir()
    assert "no record.json in it; finish a run" in says(tmp_path / "empty", "--metric", "iou")
    (finished / "record.json").unlink()
    assert "this run is not finished" in says(finished, "--metric", "iou")


def test_a_score_that_is_no_number(fails, made, tmp_path):
    plugin = tmp_path / "never.py"
    plugin.write_text(
        "from fssbench import MetricSpec\n"
        "def fssbench_metrics():\n"
        "    return [MetricSpec(name='never', summary='for a test', factory='never:Never')]\n"
        "class Never:\n"
        "    columns = ('union_fg',)\n"
        "    def measure(self, prediction, target):\n"
        "        return {}\n"
        "    def summarise(self, rows, classes=None):\n"
        "        return {'never': float('nan')}\n"
    )
    said = fails("score", made, "--metric", "never", *LOAD, "-p", plugin)
    assert "metric never: never is nan for this run; scores must be finite" in said
