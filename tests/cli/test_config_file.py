"""Tests of ``--config``."""

from __future__ import annotations

import json
from pathlib import Path

import methods_for_tests
import pytest
import trainable_for_tests

PLUGIN = methods_for_tests.__file__


def folders(root: Path) -> dict[str, bytes]:
    """Return the rows of all runs below a folder by the path of the run."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("rows.csv.gz")}


def record(root: Path) -> dict:
    """Return the record of the only run without what differs between equal runs."""
    (path,) = root.rglob("record.json")
    own = ("created", "cost", "digest")
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in own}


def test_a_file_is_the_same_as_the_command_line(run, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(f"""
        matcher = "mixer"
        plugin = [{PLUGIN!r}]
        backbone = "pixels"
        workers = 0
        fold = [0]
        shots = 2
        limit = 6
        metrics = ["iou", "regions"]
        out = {str(tmp_path / "a")!r}
        save_predictions = true
        fresh = false
        [data-option]
        images_per_split = 120
    """)
    code, _, err = run("evaluate", "--config", config)
    assert code == 0, err
    code, _, err = run(
        "evaluate", "mixer", "-p", PLUGIN, "--backbone", "pixels", "--workers", 0, "--fold", 0,
        "--shots", 2, "--limit", 6, "--metrics", "iou,regions", "--save-predictions",
        "-d", "images_per_split=120", "--out", tmp_path / "b",
    )  # fmt: skip
    assert code == 0, err
    assert record(tmp_path / "a") == record(tmp_path / "b")
    assert folders(tmp_path / "a") == folders(tmp_path / "b")


def test_the_command_line_overrides_the_file_and_single_keys_of_its_tables(run, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text("""
        backbone = "filterbank"
        fold = 1
        limit = 9
        weights = "random"
        [option]
        layer = "no such layer"
        [data-option]
        images_per_split = 100
    """)
    more = ("-o", "layer=scale2", "--limit", 5, "--weights", "pretrained", "--dry-run")
    code, out, err = run("evaluate", "--config", config, *more)
    assert code == 0, err
    assert out.startswith("shapes/v1-1k, fold 1, 1-shot, seed 0: 5 episodes")


def test_training(run, fails, tmp_path):
    config = tmp_path / "train.toml"
    config.write_text('fold = 1\nstepz = 2\nbackbone = "tiny-resnet"\n')
    plugin = ("-p", PLUGIN, "-p", trainable_for_tests.__file__)
    line = fails("train", "--config", config, *plugin)
    assert f"{config}: stepz: no option of train; did you mean 'steps'" in line
    config.write_text(
        "matcher = 'trainable'\nstage = 'meta'\nfold = 1\nsteps = 2\ndry-run = true\n"
        "json = true\nworkers = 0\n[data-option]\nimages_per_split = 60\n"
    )
    code, out, err = run("train", "--config", config, *plugin)
    assert code == 0, err
    assert json.loads(out)["steps"] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shot = 1", "shot: no option of evaluate; did you mean 'shots'"),
        ("shots = ['many']", "--shots many: give whole numbers"),
        ("limit = true", "'true' is not a valid integer"),
        ("limit = [1, 2]", "limit: write a text or a number"),
        ("fresh = 1", "fresh: write true or false"),
        ("limit = {a = 1}", "limit: takes no table"),
        ("data-root = 'a'\ndata_root = 'b'", "data_root: given twice"),
        ("cache-memory = 'much'", "--cache-memory"),
        ("config = 'other.toml'", "config: no option"),
        ("plugin = 3", "plugin: write a list"),
        ("plugin = 'no_such_plugin_module'", "no_such_plugin_module"),
        ("grid = 'g.toml'\nlimit = 3", "--limit belongs into the file of --grid"),
        ("limit = ", "invalid TOML"),
    ],
)  # fmt: skip
def test_mistakes(fails, tmp_path, text, expected):
    config = tmp_path / "run.toml"
    config.write_text(text)
    line = fails("evaluate", "--config", config)
    assert expected in line
    if "grid" not in text and "no_such" not in text:
        assert str(config) in line


def test_a_missing_file(fails, tmp_path):
    assert "No such file" in fails("evaluate", "--config", tmp_path / "none.toml")
