"""Tests of the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import methods_for_tests
import numpy as np
import program
import pytest
from PIL import Image

PLUGIN = methods_for_tests.__file__
SMALL = ["--backbone", "pixels", "-p", PLUGIN, "--workers", "0"]


@pytest.fixture
def photographs(tmp_path):
    """A folder dataset: two classes of four images of 40 x 30 with a red object."""
    root = tmp_path / "mine"
    generator = np.random.default_rng(0)
    for name in ("cup", "tree"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            pixels = generator.integers(0, 120, (30, 40, 3), dtype=np.uint8)
            mask = np.zeros((30, 40), dtype=np.uint8)
            mask[5 + i : 20 + i, 8 + i : 30] = 255
            pixels[mask == 255, 0] = 250
            Image.fromarray(pixels).save(root / name / f"{i}.jpg", quality=95)
            Image.fromarray(mask).save(root / name / f"{i}.png")
    return root


def test_a_dry_run_resolves_everything_and_writes_nothing(run, tmp_path):
    small = (*SMALL, "-d", "images_per_split=120", "--limit", 20, "--out", tmp_path / "r")
    code, out, err = run("evaluate", "mixer", *small, "--fold", "0,1", "--dry-run")
    assert code == 0, err
    first, second = out.splitlines()
    assert first.startswith("shapes/v1-1k, fold 0, 1-shot, seed 0: 20 episodes, ")
    assert "fold 1" in second
    assert not (tmp_path / "r").exists()
    code, _, err = run("evaluate", "mixer", *small, "--fold", "9", "--dry-run")
    assert code == 2
    assert "has no fold 9" in err
    code, _, err = run("evaluate", "--grid", tmp_path / "g.toml", "--dry-run")
    assert code == 2
    assert "a grid has --estimate" in err


def test_evaluate_prints_a_table_and_the_next_command(run, tmp_path):
    code, out, err = run(
        "evaluate", "mixer", *SMALL, "-d", "images_per_split=120", "--limit", 20,
        "--fold", "0,1", "--out", tmp_path / "r",
    )  # fmt: skip
    assert code == 0, err
    assert "mixer on pixels (none), shapes/v1-1k" in out
    assert "mean" in out
    assert "These rows never rank on a board: only the first 20 episodes." in out
    assert f"fssbench board build {tmp_path / 'r'} --out boards" in out
    assert err.count("20 episodes in") == 2


def test_evaluate_as_json(run, tmp_path):
    code, out, _ = run(
        "evaluate", "mixer", *SMALL, "-d", "images_per_split=120", "--limit", 20, "--fold", 2,
        "--shots", "1,2", "--json", "--out", tmp_path,
    )  # fmt: skip
    assert code == 0
    records = json.loads(out)
    assert [r["shots"] for r in records] == [1, 2]
    assert all((Path(r["path"]) / "record.json").is_file() for r in records)
    assert set(records[0]["scores"]) == {"miou", "fb_iou", "episode_miou"}


def test_evaluate_own_photographs_with_panels(run, tmp_path, photographs):
    code, _out, err = run(
        "evaluate", "prototype", *SMALL, "--protocol", "folder/v1", "--data-root", photographs,
        "--panels", 3, "--out", tmp_path / "r",
    )  # fmt: skip
    assert code == 0, err
    panels = sorted((tmp_path / "r").rglob("panels/*.png"))
    assert len(panels) == 3
    with Image.open(panels[0]) as panel:
        assert panel.height > 240
        assert panel.width > 4 * 240
    (record,) = (tmp_path / "r").rglob("record.json")
    scores = json.loads(record.read_text())
    assert scores["manifest"]["episodes"] == 8
    assert scores["scores"]["miou"] > 50  # red is easy


def test_boards_from_runs(run, tmp_path, photographs):
    options = ["--protocol", "folder/v1", "--data-root", photographs, "--out", tmp_path / "runs"]
    assert run("evaluate", "prototype", *SMALL, *options)[0] == 0
    assert run("evaluate", "mixer", *SMALL, *options)[0] == 0
    code, out, err = run("board", "build", tmp_path / "runs", "--out", tmp_path / "boards")
    assert code == 0, err
    page = tmp_path / "boards" / "folder.md"
    assert str(page) in out
    assert "prototype" in page.read_text()
    assert run("board", "check", tmp_path / "boards")[:2] == (0, "fine\n")
    page.write_text(page.read_text().replace("prototype", "paragon"))
    code, out, err = run("board", "check", tmp_path / "boards")
    assert code == 1
    assert "folder.md" in err


def test_episodes_build_and_show(run, tmp_path):
    code, out, _ = run(
        "episodes", "build", "--fold", 1, "--shots", "1,5", "-d", "images_per_split=120",
        "--limit", 50, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert code == 0
    written = json.loads(out)
    assert [w["episodes"] for w in written] == [50, 50]
    again = json.loads(
        run("episodes", "build", "--fold", 1, "--shots", "1,5", "-d", "images_per_split=120",
            "--limit", 50, "--out", tmp_path / "again", "--json")[1]
    )  # fmt: skip
    assert [w["digest"] for w in again] == [w["digest"] for w in written]
    code, out, _ = run("episodes", "show", written[1]["path"], "--first", 2)
    assert code == 0
    assert written[1]["digest"] in out
    assert "fold 1, 5-shot" in out
    built = run("episodes", "show", "shapes/v1-1k/fold1-5shot", "-d", "images_per_split=120",
                "--first", 2)[1]  # fmt: skip
    assert out.splitlines()[-2:] == built.splitlines()[-2:]
    about = json.loads(run("episodes", "show", written[0]["path"], "--json")[1])
    assert sum(about["classes"].values()) == 50


def test_data_check_and_index(run, photographs):
    code, out, _ = run("data", "check", "folder", "--data-root", photographs, "--split", "test")
    assert code == 0
    assert "cup: 4 images" in out
    assert out.endswith("fine\n")
    assert run("data", "index", "folder", "--data-root", photographs)[0] == 0
    (photographs / "cup" / "2.jpg").write_bytes(b"\xff\xd8 no image")
    code, out, err = run("data", "check", "folder", "--data-root", photographs, "--split", "test")
    assert code == 1
    assert "2.jpg" in err
    report = json.loads(
        run("data", "check", "folder", "--data-root", photographs, "--split", "test", "--json")[1]
    )
    assert len(report["problems"]) == 1


@pytest.mark.parametrize(
    "kind", ["dataset", "sampler", "protocol", "backbone", "matcher", "metric"]
)
def test_list_and_show_everything(run, kind):
    code, out, _ = run("list", f"{kind}s", "--json")
    assert code == 0
    found = json.loads(out)
    # Each backbone is made for its page; tests/backbones makes all of them.
    for entry in found[:: 12 if kind == "backbone" else 1]:
        code, text, err = run("show", kind, entry["name"])
        assert code == 0, err
        assert f"name: {entry['name']}" in text
    shown = json.loads(run("show", kind, entry["name"], "--json")[1])
    assert shown["summary"] == entry["summary"]


def test_list_shows_broken_plugins(run, tmp_path):
    (tmp_path / "shaky.py").write_text("import not_there_at_all")
    code, out, _ = run("list", "plugins", "-p", tmp_path / "shaky.py")
    assert code == 0
    assert "broken: ModuleNotFoundError: No module named 'not_there_at_all'" in out


def test_show_prints_options_and_layers(run):
    out = run("show", "matcher", "prototype")[1]
    assert "layer" in out
    assert "default 20.0" in out
    assert "Options of `Prototype`." in out
    assert "layer4.2" in run("show", "backbone", "resnet50")[1]


def test_doctor(run, monkeypatch, tmp_path):
    code, out, _ = run("doctor")
    assert code == 0, out
    assert "torch 2" in out
    (tmp_path / "shaky.py").write_text("1/0")
    code, out, _ = run("doctor", "-p", tmp_path / "shaky.py")
    assert code == 1
    assert "is broken: ZeroDivisionError" in out
    # With a CPU-only torch and a CUDA torchvision, the import of timm fails.
    monkeypatch.setitem(sys.modules, "timm", None)
    code, out, _ = run("doctor")
    assert code == 1
    assert "torchvision must be built for the installed torch" in out


def test_torchvision_of_another_torch(tmp_path):
    """A command that needs it ends with one line."""
    broken = tmp_path / "torchvision" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    shared = ["evaluate", "--fold", "0", "--limit", "2", "-d", "images_per_split=60", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "fssbench", *shared, "--backbone", "tiny-vit"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "error: torchvision cannot be imported (RuntimeError: operator" in done.stderr
    assert "Traceback" not in done.stderr


def test_plugin_brings_a_verb(run, tmp_path):
    (tmp_path / "greeting.py").write_text(
        "import click\n"
        "@click.command()\n"
        "def greet():\n"
        "    click.echo('hello')\n"
        "def fssbench_commands():\n"
        "    return [greet]\n"
    )
    assert run("greet", "-p", tmp_path / "greeting.py")[:2] == (0, "hello\n")
    assert "greet" in run("--help", "-p", tmp_path / "greeting.py")[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evaluat"], "no verb is called 'evaluat'; did you mean 'evaluate'"),
        (["evaluate", "--foldd", "1"], "--foldd"),
        (["evaluate", "--limit"], "requires an argument. (see fssbench evaluate --help)"),
        (["board", "compare", "--shots"], "(see fssbench board compare --help)"),
        (["evaluate", "protoype"], "did you mean 'prototype'"),
        (["evaluate", "--fold", "one"], "--fold one: give whole numbers"),
        (["evaluate", "--fold", "9"], "shapes has no fold 9"),
        (["evaluate", "--shots", "0"], "shots must be at least 1"),
        (["evaluate", "-o", "size"], "-o size: write key=value"),
        (["evaluate", "-o", "sise=8"], "no option 'sise'; did you mean 'size'"),
        (["evaluate", "-d", "sead=8"], "did you mean 'seed'"),
        (["evaluate", "--limit", "0"], "limit must be at least 1"),
        (["evaluate", "--device", "tpu9"], "--device tpu9"),
        (["evaluate", "--precision", "fp64"], "fp64"),
        (["evaluate", "--weights", "none"], "--weights none: give pretrained"),
        (["evaluate", "--backbone", "tiny-resnet", "--weights", "nowhere.pth"], "nowhere.pth"),
        (["evaluate", "--checkpoint", "nowhere.safetensors"], "there is no such file"),
        (["evaluate", "prototype", "-o", "layer=a", "-o", "layer=b"], "layer is given twice"),
        (
            ["evaluate", "insid3", "--encoder", "features=tiny-vit", "--encoder", "features=x"],
            "features is given twice",
        ),
        (["evaluate", "--protocol", "pascal5i/v1-1k"], "pascal5i needs --data-root"),
        (["evaluate", "--protocol", "coco20i/v1-1k"], "coco20i needs --data-root"),
        (["evaluate", "--protocol", "fss1000/v1"], "fss1000 needs --data-root"),
        (["evaluate", "--protocol", "folder/v1"], "folder needs --data-root"),
        (["evaluate", "--protocol", "pascal5i/v1-1k", "--data-root", "nowhere"], "nowhere"),
        (["evaluate", "-p", "nowhere.py"], "plugin nowhere.py: there is no such file"),
        (["evaluate", "-p"], "-p needs the name"),
        (["show", "matcher", "dcamma"], "no matcher is called 'dcamma'"),
        (["show", "mather", "x"], "'mather' is not one of"),
        (["list", "matcher"], "'matcher' is not one of"),
        (["episodes", "show", "nowhere.jsonl.gz"], "nowhere.jsonl.gz: no such file"),
        (["data", "check", "imagenet"], "no dataset is called 'imagenet'"),
        (["data", "check", "shapes", "--split", "holdout"], "no split 'holdout'"),
        (["data", "check", "folder", "--data-root", "."], "folder"),
        (["data", "index", "folder", "--data-root", "."], "folder"),
        (["evaluate", "--shots", "all"], "e.g. --shots 1,5"),
        (["board", "build", "nowhere", "--out", "b"], "nowhere"),
        (["board", "check", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(fails, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(*arguments)
    assert not list(tmp_path.rglob("record.json"))


def spoil(root: Path, how: str) -> None:
    jpeg = root / "cup" / "1.jpg"
    mask = root / "cup" / "1.png"
    match how:
        case "truncated image":
            jpeg.write_bytes(jpeg.read_bytes()[:500])
        case "missing mask":
            mask.unlink()
        case "mask of another size":
            Image.new("L", (40, 31), 255).save(mask)
        case "too few images":
            for i in range(1, 4):
                (root / "cup" / f"{i}.jpg").unlink()
                (root / "cup" / f"{i}.png").unlink()
        case "empty mask":
            for i in range(4):
                Image.new("L", (40, 30), 0).save(root / "cup" / f"{i}.png")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("truncated image", "1.jpg"),
        ("missing mask", "1.png"),
        ("mask of another size", "40x31"),
        ("too few images", "every class needs 2 images"),
        ("empty mask", "too few: cup (0)"),
    ],
)
def test_damaged_data_is_one_line_and_finished_rows_are_preserved(
    fails, photographs, tmp_path, how, expected
):
    spoil(photographs, how)
    line = fails(
        "evaluate", "prototype", *SMALL, "--protocol", "folder/v1", "--data-root", photographs,
        "--out", tmp_path / "runs",
    )  # fmt: skip
    assert expected in line


def test_spoilt_data_met_by_a_loader_process(photographs, tmp_path):
    spoil(photographs, "truncated image")
    done = program.run(
        "evaluate", *SMALL[:-1], "2", "--protocol", "folder/v1", "--data-root", photographs,
        "--out", tmp_path / "runs",
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("fssbench: error: ")
    assert "1.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupted_from_the_keyboard(run, monkeypatch, tmp_path):
    from fssbench.evaluation import evaluate as module

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "evaluate", interrupt)
    code, _, err = run("evaluate", *SMALL, "--out", tmp_path)
    assert code == 130
    assert "run the same command again" in err


def test_version_help_and_module(run):
    assert run("--version")[1].startswith("fssbench, version 0.")
    for verb in ("evaluate", "board", "episodes", "data", "list", "show", "doctor"):
        code, out, _ = run(verb, "--help")
        assert code == 0
        assert "Usage: fssbench" in out
    done = subprocess.run(
        [sys.executable, "-m", "fssbench", "--version"], capture_output=True, text=True, check=True
    )
    assert "fssbench, version" in done.stdout


def test_a_reader_that_goes_away():
    done = subprocess.run(
        f"{sys.executable} -m fssbench list | head -n 1", shell=True, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
