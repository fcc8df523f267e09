"""Episodes exported to another program, and its masks imported as a record."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fssbench
from fssbench.cli import main
from fssbench.results.record import Record
from fssbench.results.verify import problems

DOCS = Path(__file__).parents[2] / "docs" / "outside-predictions.md"
DATA = ("-d", "images_per_split=60")


def run(*arguments, fails=""):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == (2 if fails else 0)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    (found,) = fssbench.evaluate(
        data_options={"images_per_split": 60}, folds=(0,), limit=12, save_predictions=True,
        out=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip
    return found.folder


def masks_of(folder):
    lines = gzip.decompress((folder / "predictions.jsonl.gz").read_bytes()).splitlines()[1:]
    return [json.loads(line) for line in lines]


def png_folder(folder, to, value=255):
    from pycocotools import mask as rle

    to.mkdir()
    for line in masks_of(folder):
        decoded = rle.decode({"size": line["size"], "counts": line["counts"].encode()})
        Image.fromarray(decoded * np.uint8(value)).save(to / f"{line['index']:05d}.png")
    return to


@pytest.mark.parametrize("form", ["predictions", "lines", "list", "png", "png of 0 and 1"])
def test_its_own_masks_give_the_rows_byte_for_byte(evaluated, tmp_path, form):
    masks = evaluated / "predictions.jsonl.gz"
    if form == "lines":
        masks = tmp_path / "masks.jsonl"
        masks.write_text("".join(json.dumps(line) + "\n" for line in masks_of(evaluated)))
    elif form == "list":
        masks = tmp_path / "masks.json"
        masks.write_text(json.dumps(masks_of(evaluated)[::-1], indent=1))
    elif form.startswith("png"):
        masks = png_folder(evaluated, tmp_path / "masks", 255 if form == "png" else 1)
    out = tmp_path / "imported"
    run("record", "import", evaluated, *DATA, "--masks", masks, "--name", "outside", "--out", out)
    assert (out / "rows.csv.gz").read_bytes() == (evaluated / "rows.csv.gz").read_bytes()
    mine, true = Record.read(out / "record.json"), Record.read(evaluated / "record.json")
    assert (mine.scores, mine.intervals, mine.manifest) == (
        true.scores, true.intervals, true.manifest,
    )  # fmt: skip
    assert (mine.provenance, mine.dataset, mine.predictions) == (
        "imported", true.dataset, true.predictions,
    )  # fmt: skip
    assert problems(out) == []


def test_boards_rank_and_mark_it(tmp_path):
    (found,) = fssbench.evaluate(
        data_options={"images_per_split": 60}, folds=(0,), save_predictions=True,
        out=tmp_path / "runs",
    )  # fmt: skip
    run(
        "record", "import", found.folder, *DATA, "--masks", found.folder / "predictions.jsonl.gz",
        "--name", "outside", "--backbone", "vit", "--parameters", "1200", "-o", "steps=3",
        "--out", tmp_path / "imported",
    )  # fmt: skip
    run("board", "build", tmp_path / "runs", tmp_path / "imported", "--out", tmp_path / "boards")
    (line,) = [
        line
        for line in (tmp_path / "boards" / "shapes.md").read_text().splitlines()
        if line.startswith("|") and "outside" in line
    ]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[:3] == ["1", "outside (imported)", "vit"]
    assert cells[-3:-1] == ["1.2 k", "—"]
    run("board", "check", tmp_path / "boards")
    page = tmp_path / "page.html"
    run("board", "page", tmp_path / "boards", "--out", page)
    assert "imported" in page.read_text()


def test_an_import_is_not_computed_again(evaluated, tmp_path, capsys):
    masks, out = evaluated / "predictions.jsonl.gz", tmp_path / "imported"
    run("record", "import", evaluated, *DATA, "--masks", masks, "--name", "outside", "--out", out)
    run("board", "verify", out, fails="cannot be computed again")
    assert "cannot be computed again" in capsys.readouterr().err
    run("score", out, "--metric", "boundary", *DATA)


def change(folder, name, action):
    masks = png_folder(folder, name)
    action(masks)
    return masks


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda m: (m / "00003.png").unlink(), "masks are missing for 1 of the indices, first 3"),
        (lambda m: (m / "00003.png").rename(m / "99.png"), "first 3"),
        (lambda m: (m / "00003.png").rename(m / "three.png"), "three.png: name the files by"),
        (lambda m: (m / "3.png").write_bytes((m / "00003.png").read_bytes()), "both of episode 3"),
        (lambda m: (m / "00003.png").rename(m / "3.PNG"), "3.PNG: name the files by"),
        (lambda m: (m / "00003.png").write_bytes(b"no picture"), "00003.png: cannot be decoded"),
        (
            lambda m: Image.new("L", (160, 160), 7).save(m / "00003.png"),
            "00003.png: has the values 7; a mask has 0, and 1 or 255",
        ),
        (lambda m: Image.new("L", (90, 80)).save(m / "00003.png"), "of episode 3 is 90 x 80"),
        (lambda m: Image.new("RGB", (160, 160)).save(m / "00003.png"), "00003.png: is RGB"),
    ],
)
def test_masks_that_cannot_be_scored(evaluated, tmp_path, capsys, action, message):
    masks = change(evaluated, tmp_path / "masks", action)
    out = tmp_path / "imported"
    run(
        "record", "import", evaluated, *DATA, "--masks", masks, "--name", "a", "--out", out,
        fails=message,
    )  # fmt: skip
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "masks are missing for 12 of the indices"),
        ("no masks", "no masks (JSONDecodeError"),
        ('{"index": 0}', "no masks (KeyError"),
        ('{"index": "0", "size": [1, 1]}', "index '0' is no whole number"),
        ('{"index": 0, "size": "60x80"}', "size '60x80' of index 0 is not [H, W]"),
        ('[{"index": 0, "size": [1, 1]}, {"index": 0, "size": [1, 1]}]', "an index occurs twice"),
        ('{"fssbench_predictions": 1, "manifest": "0"}', "belong to another manifest"),
    ],
)
def test_files_that_are_no_masks(evaluated, tmp_path, capsys, text, message):
    (tmp_path / "masks.jsonl").write_text(text)
    run(
        "record", "import", evaluated, *DATA, "--masks", tmp_path / "masks.jsonl", "--name", "a",
        "--out", tmp_path / "out", fails=message,
    )  # fmt: skip
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prototype", "hdmnet", "My Method", "../up", "a--b", ""])
def test_names_that_are_taken_or_no_names(evaluated, tmp_path, capsys, name):
    masks = evaluated / "predictions.jsonl.gz"
    run(
        "record", "import", evaluated, *DATA, "--masks", masks, "--name", name,
        "--out", tmp_path / "out", fails="--name",
    )  # fmt: skip
    assert "--name" in capsys.readouterr().err


def test_a_result_is_not_overwritten(evaluated, tmp_path, capsys):
    arguments = (
        "record", "import", evaluated, *DATA, "--masks", evaluated / "predictions.jsonl.gz",
        "--name", "outside", "--out", tmp_path / "out",
    )  # fmt: skip
    run(*arguments)
    run(*arguments, fails="not an empty folder")
    assert "is not an empty folder; choose another --out" in capsys.readouterr().err


def test_the_loop_of_the_docs(evaluated, tmp_path):
    (code,) = re.findall(r"```python\n(.+?)```", DOCS.read_text(), flags=re.DOTALL)
    assert len(code.splitlines()) <= 30
    (tmp_path / "foreign_loop.py").write_text(code)
    run("episodes", "export", evaluated, *DATA, "--out", tmp_path / "exported")
    exported = json.loads((tmp_path / "exported" / "episodes.json").read_text())
    assert exported["digest"] == Record.read(evaluated / "record.json").manifest.digest
    first = exported["episodes"][0]
    assert set(first) == {"index", "class_id", "class_name", "query", "supports"}
    mask = np.asarray(Image.open(tmp_path / "exported" / first["supports"][0]["mask"]))
    assert set(np.unique(mask)) == {0, 255}
    subprocess.run(
        [sys.executable, tmp_path / "foreign_loop.py", tmp_path / "exported", tmp_path / "masks"],
        check=True,
    )
    run(
        "record", "import", evaluated, *DATA, "--masks", tmp_path / "masks", "--name", "by-colour",
        "--metric", "boundary", "--out", tmp_path / "out",
    )  # fmt: skip
    scores = Record.read(tmp_path / "out" / "record.json").scores
    assert scores["miou"] > 5
    assert scores["j_and_f"] > 5
