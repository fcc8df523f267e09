"""``fssbench episodes diff`` and ``stats``."""

from __future__ import annotations

import json

import methods_for_tests
import pytest

from fssbench.results.record import MANIFEST_FILE

SHAPES = ["-d", "images_per_split=60"]
A, B = "shapes/v1-1k/fold0-1shot", "shapes/v1-1k/fold0-1shot-seed1"


@pytest.fixture
def manifests(run, tmp_path):
    """Manifest files of seeds 0 and 1."""
    code, out, err = run(
        "episodes", "build", "--fold", 0, "--seed", "0,1", "--limit", 40, *SHAPES, "--out",
        tmp_path, "--json",
    )  # fmt: skip
    assert code == 0, err
    return [entry["path"] for entry in json.loads(out)]


@pytest.fixture
def finished(run, tmp_path):
    """A run directory."""
    code, _, err = run(
        "evaluate", "--backbone", "pixels", "-p", methods_for_tests.__file__, "--fold", 0,
        "--limit", 40, *SHAPES, "--workers", 0, "--out", tmp_path / "runs", "--json",
    )  # fmt: skip
    assert code == 0, err
    (path,) = (tmp_path / "runs").rglob("record.json")
    return path.parent


def test_diff_of_equal_manifests_in_every_notation(run, manifests, finished):
    assert run("episodes", "diff", A, f"{A}-seed0", *SHAPES)[0] == 0
    code, out, _ = run("episodes", "diff", manifests[0], finished)
    assert code == 0
    assert out.endswith("equal\n")
    assert "40 in common, 40 of them at the same index" in out
    assert run("episodes", "diff", finished / MANIFEST_FILE, manifests[0])[0] == 0


def test_diff_of_different_manifests(run, manifests):
    code, out, _ = run("episodes", "diff", *manifests)
    assert code == 1
    assert "differs   seed: 0 | 1" in out
    assert "first difference: episode " in out
    assert out.endswith("different\n")
    code, out, _ = run("episodes", "diff", manifests[0], A, *SHAPES, "--json")
    assert code == 1
    found = json.loads(out)
    assert found["header"]["limit"] == {"same": False, "a": 40, "b": None}
    assert found["episodes"] == {"a": 40, "b": 1000}
    assert found["common"] == found["in_place"] == 40
    assert found["first_difference"]["index"] == 40
    assert found["first_difference"]["a"] is None


def test_diff_reports_other_annotations(run):
    code, out, _ = run("episodes", "diff", A, "shapes/v1-1k/fold1-1shot", *SHAPES)
    assert code == 1
    assert "differs   classes: 5 (star" in out
    assert "0 in common" in out
    assert "star: 200 (20.0 %) | 0 (0.0 %)" in out


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("nowhere.jsonl.gz", "no such file; name a manifest, a run directory, or a setting"),
        ("shapes/v9/fold0-1shot", "shapes/v9"),
        ("shapes/v1-1k/fold7-1shot", "no fold 7"),
        ("shapes/v1-1k/fold0-0shot", "shots must be at least 1"),
        ("pascal5i/v1-1k/fold0-1shot", "needs --data-root"),
        ("pascal5i/hsnet-1k/fold0-1shot", "--"),
    ],
)
def test_wrong_manifests(fails, told, message):
    assert message in fails("episodes", "diff", told, A, *(SHAPES if "pascal" not in told else []))
    assert message in fails("episodes", "stats", told, *(SHAPES if "pascal" not in told else []))


def test_a_changed_manifest_and_a_folder_without_one(fails, manifests, tmp_path):
    (tmp_path / "text.jsonl").write_text("no manifest")
    assert "not a manifest" in fails("episodes", "diff", tmp_path / "text.jsonl", manifests[0])
    assert "cannot read this manifest" in fails("episodes", "stats", tmp_path)


def test_stats_as_text_and_json(run, manifests):
    code, out, _ = run("episodes", "stats", manifests[0])
    assert code == 0
    assert "shapes/v1-1k, fold 0, 1-shot, seed 0" in out
    assert "20.0 %" in out
    assert "width" not in out
    found = json.loads(run("episodes", "stats", manifests[0], "--json")[1])
    assert sum(share["episodes"] for share in found["classes"]) == 40
    assert found["queries"]["uses"] == 40
    assert found["miou"] is None
    assert [line["width"] for line in found["by_count"] if line["stretches"]] == [None]


def test_stats_with_a_run_and_a_plot(run, finished, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra train draws the plot")
    plot = tmp_path / "stats.png"
    code, out, err = run("episodes", "stats", finished, "--run", finished, "--plot", plot)
    assert code == 0, err
    assert "width of the 95 % interval" in out
    assert "about" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = json.loads(run("episodes", "stats", finished, "--run", finished, "--json")[1])
    record = json.loads((finished / "record.json").read_text())
    assert found["miou"] == pytest.approx(record["scores"]["miou"])
    (whole,) = (line for line in found["by_count"] if line["stretches"])
    low, high = record["intervals"]["miou"]
    assert whole["width"] == pytest.approx(high - low, rel=0.2)
    (ten,) = (line for line in found["by_count"] if line["episodes"] == 10_000)
    assert ten["width"] == pytest.approx(whole["width"] * (40 / 10_000) ** 0.5)


def test_stats_plot_without_a_run(run, manifests, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra train draws the plot")
    assert run("episodes", "stats", manifests[0], "--plot", tmp_path / "stats.svg")[0] == 0
    assert "<svg" in (tmp_path / "stats.svg").read_text()


def test_stats_refuses_what_does_not_fit(fails, manifests, finished, tmp_path):
    message = fails("episodes", "stats", manifests[1], "--run", finished)
    assert f"{finished}: row 0 is of " in message
    assert "cannot read these rows" in fails("episodes", "stats", manifests[0], "--run", tmp_path)
    assert "a picture's name ends in" in fails(
        "episodes", "stats", manifests[0], "--plot", tmp_path / "x.txt"
    )


def test_stats_of_an_oracle_without_masks(run, fails, manifests):
    code, out, _ = run("episodes", "stats", manifests[0], "--mask-free", *SHAPES)
    assert code == 0
    found = json.loads(run("episodes", "stats", manifests[0], "--mask-free", "--json", *SHAPES)[1])
    oracle = found["mask_free"]
    assert 50 < oracle["single"] < 100
    assert 50 < oracle["miou"] < 100
    assert f"Without masks: {oracle['single']:.1f} %" in out
    assert f"scores {oracle['miou']:.2f}." in out
    assert json.loads(run("episodes", "stats", manifests[0], "--json")[1])["mask_free"] is None
    assert "these annotations" in fails(
        "episodes", "stats", manifests[0], "--mask-free", "-d", "images_per_split=70"
    )
