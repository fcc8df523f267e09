"""Tests of ``fssbench reproduce``."""

from __future__ import annotations

import shlex
from pathlib import Path

import methods_for_tests

from fssbench.results.record import Record

PLUGIN = methods_for_tests.__file__
DATA = ("-d", "images_per_split=120")


def evaluated(run, out, *arguments):
    code, _, err = run("evaluate", *arguments, *DATA, "--workers", 0, "--fold", 1, "--out", out)
    assert code == 0, err
    (folder,) = (path.parent for path in out.rglob("record.json"))
    return folder


def test_the_printed_command_gives_the_same_record(run, tmp_path):
    folder = evaluated(
        run, tmp_path / "a", "prototype", "--backbone", "filterbank", "-o", "layer=scale2",
        "--shots", 2, "--seed", 3, "--limit", 7, "--metrics", "regions", "--batch-size", 2,
        "--cache-half", "--save-predictions",
    )  # fmt: skip
    code, out, err = run("reproduce", folder / "record.json", *DATA, "--workers", 0)
    assert code == 0, err
    assert err == ""
    printed = shlex.split(out)
    assert printed[:3] == ["fssbench", "evaluate", "prototype"]
    assert "--device" not in printed
    printed[printed.index("reproduced")] = str(tmp_path / "b")
    assert run(*printed[1:])[0] == 0
    (again,) = (tmp_path / "b").rglob("rows.csv.gz")
    assert again.read_bytes() == (folder / "rows.csv.gz").read_bytes()
    one, other = Record.read(folder / "record.json"), Record.read(again.parent / "record.json")
    for name in ("scores", "config", "manifest", "predictions", "weights"):
        assert getattr(one, name) == getattr(other, name)
    assert other.environment["features"] == "float16"


def test_run(run, fails, tmp_path):
    limits = ("mixer", "-p", PLUGIN, "--backbone", "pixels", "--limit", 6)
    folder = evaluated(run, tmp_path / "a", *limits)
    again = ("reproduce", folder, "-p", PLUGIN, "--workers", 0, "--out", tmp_path / "b", "--run")
    code, out, err = run(*again, *DATA)
    assert code == 0, err
    assert out.splitlines()[-1].startswith("Recorded: mIoU ")
    assert len(list((tmp_path / "b").rglob("record.json"))) == 1
    code, out, err = run("reproduce", folder, "-p", PLUGIN)
    assert code == 0
    assert shlex.split(out)[-2:] == ["-p", PLUGIN]
    assert "add --data-root and -d" in err
    assert "are not those of the manifest" in fails(*again)
    address = "hf://user/name/last.safetensors"
    assert f"--checkpoint {address}: the record is" in fails(*again, "--checkpoint", address)
    (folder / "rows.csv.gz").unlink()
    assert "rows.csv.gz: missing" in fails(*again, *DATA)


def test_weights_in_the_checkpoint_are_no_other_file(run):
    results = Path(__file__).parents[2] / "leaderboards" / "results" / "shapes"
    record = next(
        path
        for path in sorted(results.rglob("record.json"))
        if Record.read(path).weights.name == "last.safetensors"
    )
    code, out, err = run("reproduce", record)
    assert code == 0
    assert "--weights" not in out
    assert "--checkpoint is the file of sha256" in err
    assert "--weights" not in err


def test_files_are_named_as_in_the_record(run, fails, tmp_path):
    from safetensors.torch import save_file

    from fssbench import build

    weights = tmp_path / "own.safetensors"
    save_file(build.backbone("tiny-resnet").state_dict(), weights)
    folder = evaluated(
        run, tmp_path / "a", "prototype", "--backbone", "tiny-resnet", "--weights", weights,
        "--limit", 4,
    )  # fmt: skip
    code, out, err = run("reproduce", folder)
    assert code == 0
    assert "--weights own.safetensors" in out
    assert "--weights own.safetensors is the file of sha256" in err
    assert "has weights of a file, 'own.safetensors'" in fails("reproduce", folder, "--run", *DATA)
