"""``fssbench data prepare``, and the known counts of ``data check``."""

from __future__ import annotations

import hashlib
import json

import archives_for_tests as made
import attrs
import numpy as np
import program
import pytest
from PIL import Image

from fssbench.data.prepare import disk
from fssbench.data.prepare import download as downloading
from fssbench.data.prepare.archives import ARCHIVES


@pytest.fixture
def archives(tmp_path):
    return made.write(
        tmp_path / "in",
        {"voc.tar": made.tar_bytes(made.voc_files()),
         "sbd.tgz": made.tar_bytes(made.sbd_files(), "w:gz")},
    )  # fmt: skip


@pytest.fixture
def froms(archives):
    return [part for path in archives.values() for part in ("--from", path)]


def test_prepare_check_and_prepare_again(run, froms, tmp_path):
    to = tmp_path / "data"
    code, out, err = run("data", "prepare", "pascal5i", "--to", to, *froms)
    assert code == 0, err
    assert "train_aug.txt: 4  (the whole dataset has 10,582)" in out
    last = out.splitlines()[-1]
    assert last == f"pascal5i is ready: fssbench data check pascal5i --data-root {to}"
    code, out, err = run("data", "check", "pascal5i", "--data-root", to)
    assert code == 0, err
    assert "train: 4 of 10,582 images" in out
    assert "val: 1 of 1,449 images" in out
    assert "fold 2  motorbike: 1 of 76 images, 36 pixels" in out
    assert "fold 2 in all: 1 images, 1 classes, 1 of 804 (image, class) pairs" in out
    assert "missing for the whole dataset: 1,448 of the 1,449 images" in out
    assert "every image of aeroplane, bicycle" in out
    assert out.endswith("fine\n")
    code, out, _ = run("data", "prepare", "pascal5i", "--to", to, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["already"] is True
    assert told["counts"]["SegmentationClassAug"] == 5
    assert told["archives"]["sbd"]["file"] == "sbd.tgz"


def test_prepare_coco_and_fss(run, tmp_path):
    files = {f"{k}.zip": made.zip_bytes(f) for k, f in made.coco_files("2017").items()}
    files["fss.zip"] = made.zip_bytes(made.fss_files(each=9))
    paths = made.write(tmp_path / "in", files)
    to = tmp_path / "data"
    coco = [part for n, path in paths.items() if n != "fss.zip" for part in ("--from", path)]
    assert run("data", "prepare", "coco20i", "--year", "2017", "--to", to, *coco)[0] == 0
    code, out, err = run("data", "check", "coco20i", "--data-root", to)
    assert code == 0, err
    assert "val: 3 of 5,000 images" in out
    code, out, _ = run("data", "prepare", "fss1000", "--to", to, "--from", paths["fss.zip"])
    assert code == 0
    root = out.split()[-1]
    code, out, _ = run("data", "check", "fss1000", "--data-root", root, "--split", "test")
    assert code == 0
    assert "10 images in each class; others in abacus (9), zucchini (9)" in out


def test_prepare_by_download(run, fails, archives, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    to = tmp_path / "data"
    with made.serving() as server:
        server.files = {
            a.file: path.read_bytes()
            for a, path in zip(ARCHIVES["pascal5i"], archives.values(), strict=True)
        }
        small = tuple(
            attrs.evolve(
                a,
                url=f"{server.url}/{a.file}",
                size=None,
                sha256=hashlib.sha256(server.files[a.file]).hexdigest(),
            )
            for a in ARCHIVES["pascal5i"]
        )
        monkeypatch.setitem(ARCHIVES, "pascal5i", small)
        command = ["data", "prepare", "pascal5i", "--to", to, "--download"]
        server.break_after = [3000, *[0] * (downloading.ATTEMPTS - 1)]
        assert "run the same command again to resume" in fails(*command)
        code, out, err = run(*command)
        assert code == 0, err
    assert f"{to / 'downloads' / 'benchmark.tgz'} is no longer needed" in out
    assert run("data", "check", "pascal5i", "--data-root", to)[0] == 0


def test_wrong_inputs_are_one_line(fails, archives, froms, tmp_path, monkeypatch):
    to = tmp_path / "data"
    command = ["data", "prepare", "pascal5i", "--to", to]
    assert "known: pascal5i, coco20i, fss1000" in fails("data", "prepare", "imagenet", "--to", to)
    assert "still needs VOCtrainval_11-May-2012.tar" in fails(*command)
    assert "still needs benchmark.tgz" in fails(*command, "--from", archives["voc.tar"])
    assert "is no archive of fss1000" in fails(
        "data", "prepare", "fss1000", "--to", to, "--from", archives["voc.tar"]
    )
    (tmp_path / "broken.tgz").write_bytes(archives["sbd.tgz"].read_bytes()[:-200])
    assert "damaged or cut off" in fails(
        *command, "--from", archives["voc.tar"], "--from", tmp_path / "broken.tgz"
    )
    (tmp_path / "file").write_text("")
    assert "is a file" in fails("data", "prepare", "pascal5i", "--to", tmp_path / "file", *froms)
    assert "Missing option '--to'" in fails("data", "prepare", "pascal5i")
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 0)
    assert "0 bytes free" in fails("data", "prepare", "pascal5i", "--to", tmp_path / "new", *froms)


def test_check_says_why_a_split_is_not_there(run, froms, tmp_path):
    to = tmp_path / "data"
    run("data", "prepare", "pascal5i", "--to", to, *froms)
    (to / "VOC2012" / "ImageSets" / "Segmentation" / "train_aug.txt").unlink()
    code, out, _ = run("data", "check", "pascal5i", "--data-root", to)
    assert code == 0
    assert "train: not there: " in out
    assert "no train_aug.txt or trainaug.txt" in out
    found = json.loads(run("data", "check", "pascal5i", "--data-root", to, "--json")[1])
    assert "no train_aug.txt" in found["splits"]["train"]["not_there"]
    assert found["splits"]["val"]["official"] == 1449
    assert found["splits"]["val"]["folds"][2]["official"] == 804


def test_check_counts_other_splits_when_one_has_problems(run, froms, tmp_path):
    to = tmp_path / "data"
    run("data", "prepare", "pascal5i", "--to", to, *froms)
    (to / "VOC2012" / "JPEGImages" / "2008_000002.jpg").unlink()
    code, out, err = run("data", "check", "pascal5i", "--data-root", to)
    assert code == 1
    assert "2008_000002.jpg: no such image" in err
    assert "val: 1 of 1,449 images" in out


def test_check_prints_a_line_for_each_kind_of_problem(run, tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30] = 255
    photo = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for name in ("cup", "key"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(6):
            Image.fromarray(photo).save(folder / f"{number}.jpg")
            broken = photo if number == 3 else mask // 60 * number
            Image.fromarray(mask if number == 0 else broken).save(folder / f"{number}_mask.png")
    command = ["data", "check", "folder", "--data-root", tmp_path / "data", "--split", "test"]
    code, out, err = run(*command)
    assert code == 1
    first, *rest = [line for line in err.splitlines() if "cup" in line]
    assert first.startswith(f"8 times: {tmp_path}/data/cup/1_mask.png: its brightest pixel is 4 of")
    assert first.endswith(f"/cup/2_mask.png, {tmp_path}/data/cup/4_mask.png and 5 more")
    assert len(rest) == 1
    assert rest[0].startswith(f"2 times: {tmp_path}/data/cup/3_mask.png: it has 2")
    assert rest[0].endswith(f"; also {tmp_path}/data/key/3_mask.png")
    assert "10 problems" in err
    _, out, _ = run(*command, "--json")
    assert len(json.loads(out)["problems"]) == 10


def test_check_counts_a_problem_of_several_splits_once(run, tmp_path):
    for name in ("cup", "key"):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (50, 40)).save(folder / f"{number}.jpg")
            Image.new("L", (50, 40), 255).save(folder / f"{number}_mask.png")
    (tmp_path / "data" / "cup" / "1_mask.png").write_text("no picture")
    command = ["data", "check", "folder", "--data-root", tmp_path / "data"]
    code, _, err = run(*command)
    assert code == 1
    assert err.count("1_mask.png") == 1
    assert "1 problem\n" in err
    found = json.loads(run(*command, "--json")[1])
    assert len(found["problems"]) == 1
    assert set(found["splits"].values()) == {"has problems"}


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_class_names_on_streams_of_other_encodings(tmp_path, encoding):
    mask = np.zeros((40, 50), np.uint8)
    mask[10:30] = 255
    for name in ("[cup] ñ", "犬 [b]"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (50, 40)).save(tmp_path / "data" / name / f"{number}.jpg")
            Image.fromarray(mask).save(tmp_path / "data" / name / f"{number}.png")

    def output(*command):
        environment = {"PYTHONIOENCODING": encoding, "COLUMNS": "100"}
        done = program.run(*command, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "[cup]" in output("data", "check", "folder", "--data-root", "data", "--split", "test")
    built = ("episodes", "build", "--protocol", "folder/v1", "--data-root", "data")
    output(*built, "--limit", "4", "--out", "built")
    (manifest,) = (tmp_path / "built").iterdir()
    for verb in ("show", "stats"):
        shown = output("episodes", verb, str(manifest))
        assert "[cup]" in shown
        assert "[b]" in shown
        assert ("犬" in shown) == (encoding == "utf-8")
