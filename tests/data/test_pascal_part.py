"""PASCAL-Part: parts of cut-out objects in the layout of Matcher's annotations."""

from __future__ import annotations

import json
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

import fssbench
from fssbench import FssbenchError
from fssbench.cli import _run
from fssbench.data.check import check_image, count_split
from fssbench.data.prepare.prepare import prepare
from fssbench.data.prepare.recipes import RECIPES
from fssbench.testing.datasets import CHECKS as DATASET_CHECKS
from fssbench.testing.datasets import DatasetSubject

HEIGHT, WIDTH = 48, 64
NAMES = {
    "animals": ("bird", ("FACE", "WINGS")), "indoor": ("tvmonitor", ("SCREEN",)),
    "person": ("person", ("FACE",)), "vehicles": ("aeroplane", ("BODY", "TAIL")),
}  # fmt: skip
IMAGES = {"train": ("2008_000001", "2008_000002"), "val": ("2008_000003", "2008_000004")}


def encoded(rows, columns):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[rows, columns] = 1
    found = rle.encode(mask)
    return {"size": found["size"], "counts": found["counts"].decode()}


def annotation():
    """An object of each name in the left half, and a bird without a face at the right."""
    objects = []
    for name, parts in NAMES.values():
        found = [
            {"name": part, "mask": [encoded(slice(8 + 12 * n, 16 + 12 * n), slice(6, 14))]}
            for n, part in enumerate(parts)
        ]
        found[0]["mask"].append(encoded(slice(8, 16), slice(20, 24)))  # a part of two masks
        box = {"xmin": 4, "ymin": 6, "xmax": 28, "ymax": 40}
        objects.append({"name": name, "bndbox": box, "parts": found})
    wing = {"name": "WINGS", "mask": [encoded(slice(8, 16), slice(44, 52))]}
    box = {"xmin": 40, "ymin": 4, "xmax": 60, "ymax": 20}
    objects.append({"name": "bird", "bndbox": box, "parts": [wing]})
    objects.append({"name": "boat", "bndbox": box, "parts": []})
    return {"object": objects}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "VOCdevkit" / "VOC2010"
    parts = folder / "Annotations_Part_json_merged_part_classes"
    (folder / "JPEGImages").mkdir(parents=True)
    parts.mkdir()
    listed = {
        group: {
            "object": {name: {"part": {p: {s: list(i) for s, i in IMAGES.items()} for p in of}}}
        }
        for group, (name, of) in NAMES.items()
    }
    bird = listed["animals"]["object"]["bird"]["part"]
    bird["TAIL"] = {"train": list(IMAGES["train"]), "val": []}  # no class: none in val
    (folder / "all_obj_part_to_image.json").write_text(json.dumps(listed))
    for image in (*IMAGES["train"], *IMAGES["val"]):
        (parts / f"{image}.json").write_text(json.dumps(annotation()))
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        pixels[8:16, 6:14] = 250, 20, 20
        Image.fromarray(pixels).save(folder / "JPEGImages" / f"{image}.jpg", quality=100)
    return tmp_path


@pytest.fixture
def parts(root):
    return fssbench.dataset("pascal-part", root)


def test_folds_are_superclasses_and_images_are_cut_out_objects(parts):
    # Matcher leaves out the aeroplane's tail, and parts without images of both splits.
    assert parts.classes == (
        "bird:FACE", "bird:WINGS", "tvmonitor:SCREEN", "person:FACE", "aeroplane:BODY",
    )  # fmt: skip
    assert [parts.fold_classes(fold) for fold in range(4)] == [(0, 1), (2,), (3,), (4,)]
    assert parts.image_ids("val") == tuple(
        f"{image}/{number}" for image in IMAGES["val"] for number in range(5)
    )
    assert parts.image("2008_000003/0").shape == (3, 34, 24)  # without the box's last row, column
    assert parts.class_pixels("2008_000003/0") == {0: 64 + 32, 1: 64}
    assert parts.class_pixels("2008_000003/4") == {1: 64}
    face = parts.mask("2008_000003/0", 0)
    assert face[2:10, 2:10].all()
    assert face[2:10, 16:20].all()
    assert not parts.mask("2008_000003/0", 3).any()  # the face of the person


def test_conforms_and_data_check_finds_no_problem(parts, root, capsys):
    subject = DatasetSubject(name="pascal-part", root=root)
    assert not [c for c in DATASET_CHECKS if c.outcome(subject).verdict == "failed"]
    assert not [problem for i in parts.image_ids("val") for problem in check_image(parts, i)]
    assert count_split(parts, "val").images == 10
    assert _run(["data", "check", "pascal-part", "--data-root", str(root)]) == 0
    assert "fold 0  bird:WINGS: 4 images, 256 pixels" in capsys.readouterr().out


def test_evaluate(root, tmp_path):
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol="pascal-part/v1-1k", data_root=root,
        folds=(0,), limit=4, workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert outcome.record.scores["miou"] > 0


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("all_obj_part_to_image.json", "no all_obj_part_to_image.json in"),
        ("Annotations_Part_json_merged_part_classes/2008_000003.json", "lists its image"),
        ("JPEGImages/2008_000003.jpg", "2008_000003.jpg: no such file"),
    ],
)
def test_what_is_missing_is_one_line(root, lost, message, capsys):
    (root / "VOCdevkit" / "VOC2010" / lost).unlink()
    assert _run(["data", "check", "pascal-part", "--data-root", str(root)]) != 0
    printed = capsys.readouterr()
    assert message in printed.err + printed.out


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("all_obj_part_to_image.json", {"animals": {}}, "must have SUPERCLASS.object.NAME"),
        ("Annotations_Part_json_merged_part_classes/2008_000003.json", {"object": [{}]},
         "must have a list 'object' with name, bndbox and parts"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(root, file, content, message):
    (root / "VOCdevkit" / "VOC2010" / file).write_text(json.dumps(content))
    with pytest.raises(FssbenchError, match=message):
        fssbench.dataset("pascal-part", root).image_ids("val")


def test_run_lengths_of_another_mask_are_an_error(root, parts):
    path = root / "VOCdevkit/VOC2010/Annotations_Part_json_merged_part_classes/2008_000003.json"
    content = annotation()
    content["object"][0]["parts"][0]["mask"][0]["counts"] = "00000"
    path.write_text(json.dumps(content))
    message = f"a mask of bird:FACE has run lengths that do not add up to {HEIGHT * WIDTH} pixels; "
    with pytest.raises(FssbenchError, match=f"{message}correct the file"):
        parts.mask("2008_000003/0", 0)


def test_a_mask_of_another_size_is_an_error(root, parts):
    path = root / "VOCdevkit/VOC2010/Annotations_Part_json_merged_part_classes/2008_000003.json"
    content = annotation()
    content["object"][0]["parts"][0]["mask"][0]["size"] = [3, 3]
    path.write_text(json.dumps(content))
    with pytest.raises(
        FssbenchError, match=r"a mask of bird:FACE has the size \[3, 3\], its image"
    ):
        parts.count_pixels("2008_000003/0")


def test_the_archives_of_voc_and_matcher(root, tmp_path):
    folder, to = root / "VOCdevkit" / "VOC2010", tmp_path / "to"
    images, parts = tmp_path / "images.tar", tmp_path / "parts.zip"
    with tarfile.open(images, "w") as opened:
        for path in folder.glob("JPEGImages/*"):
            opened.add(path, path.relative_to(root))
    with zipfile.ZipFile(parts, "w") as opened:
        for path in folder.rglob("*.json"):
            opened.write(path, f"pascal/{path.relative_to(folder)}")
    recipe = RECIPES["pascal-part"]
    with pytest.raises(FssbenchError, match=r"pascal-part still needs pascal.zip \("):
        prepare(recipe, to, given=[images])
    done = prepare(recipe, to, given=[parts, images])
    assert dict(done.marker.counts) == {"JPEGImages": 4, "annotations": 4, "lists": 1}
    data = fssbench.dataset("pascal-part", done.data_root)
    assert data.class_pixels("2008_000003/0") == {0: 64 + 32, 1: 64}
    assert prepare(recipe, to).already


def test_annotations_without_their_list_are_refused(root, tmp_path):
    folder = root / "VOCdevkit" / "VOC2010"
    images, parts = tmp_path / "images.tar", tmp_path / "parts.zip"
    with tarfile.open(images, "w") as opened:
        opened.add(folder / "JPEGImages", "VOCdevkit/VOC2010/JPEGImages")
    with zipfile.ZipFile(parts, "w") as opened:
        for path in folder.glob("Annotations*/*.json"):
            opened.write(path, f"pascal/{path.relative_to(folder)}")
    with pytest.raises(FssbenchError, match="no lists; the archive is not whole"):
        prepare(RECIPES["pascal-part"], tmp_path / "to", given=[parts, images])
