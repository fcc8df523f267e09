"""The datasets of people's own data: coco-json and labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

import fssbench
from fssbench import build
from fssbench.cli import _run
from fssbench.data.dataset import Dataset
from fssbench.data.own_data import OwnData
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluate import prepare
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.process_group import ProcessGroup
from fssbench.results.rows import read_rows
from fssbench.testing import DatasetConformance

HEIGHT, WIDTH = 30, 40
MUG, KEY = 17, 3
CATEGORIES = [{"id": MUG, "name": "mug"}, {"id": KEY, "name": "key"}, {"id": 90, "name": "pen"}]


def box(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def plane(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    pixels[top:bottom, left:right] = 1
    return pixels


def compressed(pixels: np.ndarray) -> dict[str, Any]:
    found = rle.encode(np.asfortranarray(pixels))
    return {"size": found["size"], "counts": found["counts"].decode()}


def counted(pixels: np.ndarray) -> dict[str, Any]:
    flat = pixels.flatten("F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": [0, *runs] if flat[0] else runs}


KINDS = [
    (MUG, [box(2, 2, 12, 10), box(20, 3, 24, 9)], 0),
    (MUG, compressed(plane(8, 6, 18, 16)), 0),
    (KEY, counted(plane(0, 0, 5, 5)), 0),
    (KEY, counted(plane(3, 3, 30, 20)), 1),
    (90, compressed(plane(30, 20, 38, 28)), 1),
]


def write_coco(
    root: Path, path: str = "instances.json", images: str = "images", first: int = 0,
    count: int = 8, annotations: Any = KINDS, categories: Any = CATEGORIES,
) -> Path:  # fmt: skip
    """Write an annotation file, in which every image has the same annotations."""
    (root / images).mkdir(parents=True, exist_ok=True)
    listed, drawn = [], []
    for number in range(first, first + count):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(root / images / f"photo {number}.png")
        listed.append(
            {"id": 5 * number, "file_name": f"photo {number}.png", "height": HEIGHT, "width": WIDTH}
        )
        for category, segmentation, crowd in annotations:
            box_and_area = {"bbox": [0, 0, 1, 1], "area": 1}
            drawn.append(
                {"id": len(drawn) + 1, "image_id": 5 * number, "category_id": category,
                 "segmentation": segmentation, "iscrowd": crowd, **box_and_area}
            )  # fmt: skip
    content = {"images": listed, "annotations": drawn, "categories": categories}
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps(content))
    return root


def write_labels(root: Path, values: dict[int, int], *, names: str = 'names = "x"',
                 dtype: Any = np.uint8, file: str = "classes.toml", count: int = 8,
                 folder: str = "") -> Path:  # fmt: skip
    """Write images and label maps; value v fills v's number of rows, from the top."""
    for number in range(count):
        for kind in ("images", "labels"):
            (root / kind / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(pixels).save(root / "images" / folder / f"{number}.jpg")
        labels, row = np.zeros((HEIGHT, WIDTH), dtype), 0
        for value, rows in values.items():
            labels[row : row + rows] = value
            row += rows
        Image.fromarray(labels).save(root / "labels" / folder / f"{number}.png")
    (root / file).write_text(names)
    return root


def made(name: str, root: Path, /, **options: Any) -> OwnData:
    found = build.dataset(name, root, **options)
    assert isinstance(found, OwnData)
    return found


def read_all(name: str, root: Path, /, **options: Any) -> None:
    dataset = build.dataset(name, root, **options)
    for image_id in dataset.image_ids("val"):
        dataset.class_pixels(image_id)
        dataset.image(image_id)


def error_of(name: str, root: Path, /, **options: Any) -> str:
    with pytest.raises(FssbenchError) as raised:
        read_all(name, root, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def expect_like_pycocotools(dataset: Dataset, path: Path, ids: dict[int, str]) -> int:
    """Compare every mask and count with those of pycocotools, and return the number of masks."""
    coco = COCO(path)
    classes = sorted(coco.getCatIds())
    assert dataset.classes == tuple(each["name"] for each in coco.loadCats(classes))
    compared = 0
    for number, image_id in ids.items():
        size = [coco.imgs[number][side] for side in ("height", "width")]
        counts = {}
        shown = {one["category_id"] for one in coco.loadAnns(coco.getAnnIds(imgIds=number))}
        absent = next((category for category in classes if category not in shown), None)
        for class_id, category in enumerate(classes):
            if category not in shown and category != absent:
                continue
            things, crowds = np.zeros(size, bool), np.zeros(size, bool)
            for one in coco.loadAnns(coco.getAnnIds(imgIds=number, catIds=category)):
                (crowds if one["iscrowd"] else things)[coco.annToMask(one) == 1] = True
            wanted = np.where(things, 1, crowds * 255)
            assert np.array_equal(dataset.mask(image_id, class_id).numpy(), wanted)
            compared += bool(wanted.any())
            if things.any():
                counts[class_id] = int(things.sum())
        assert dataset.class_pixels(image_id) == counts
    return compared


def test_every_segmentation_is_as_in_pycocotools(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    ids = {5 * number: f"photo {number}.png" for number in range(8)}
    assert expect_like_pycocotools(made("coco-json", root), root / "instances.json", ids) == 24


def test_coco_mini_is_as_in_pycocotools_and_as_coco20i(shared_data: Path) -> None:
    root = shared_data / "coco_mini"
    own, official = made("coco-json", root, folds=4), build.dataset("coco20i", root)
    path = root / "annotations" / "instances.json"
    ids = {int(name.partition(".")[0]): name for name in own.image_ids("val")}
    assert expect_like_pycocotools(own, path, ids) > 700
    assert own.name == "coco_mini"
    for fold in range(4):
        assert own.fold_classes(fold) == official.fold_classes(fold)
    for number, name in ids.items():
        assert own.class_pixels(name) == official.class_pixels(f"{number:012d}")


def test_two_files_are_two_splits(tmp_path: Path) -> None:
    more = [*CATEGORIES, {"id": 40, "name": "cup"}]
    write_coco(tmp_path, "annotations/train.json", "train", categories=more)
    write_coco(tmp_path, "annotations/val.json", "val", first=3, count=4)
    found = made("coco-json", tmp_path, train="annotations/train.json", val="annotations/val.json")
    assert found.classes == ("key", "mug", "cup", "pen")
    assert len(found.image_ids("train")) == 8
    assert found.image_ids("val")[0] == "val/photo 3.png"
    assert found.image_path("val/photo 3.png") == tmp_path / "val" / "photo 3.png"
    assert found.image_path("train/photo 3.png") == tmp_path / "train" / "photo 3.png"
    assert found.class_pixels("val/photo 3.png").keys() == {0, 1}
    one = made("coco-json", tmp_path, val="annotations/val.json", images="{split}")
    assert one.image_path("photo 4.png") == tmp_path / "val" / "photo 4.png"
    assert one.shares_images()


def test_folds(tmp_path: Path) -> None:
    names = [{"id": 10 * n, "name": name} for n, name in enumerate("abcde")]
    root = write_coco(tmp_path / "My Data!", annotations=[], categories=names)

    def folds(**options: Any) -> list[tuple[int, ...]]:
        found = made("coco-json", root, **options)
        return [found.fold_classes(fold) for fold in range(found.folds)]

    assert folds() == [(0, 1, 2, 3, 4)]
    assert folds(folds="2") == [(0, 2, 4), (1, 3)]
    assert folds(folds="2", fold_order="contiguous") == [(0, 1), (2, 3, 4)]
    assert folds(novel="d,b") == [(1, 3)]
    (root / "folds.json").write_text('{"folds": [["e", "a"], ["c"]]}')
    assert folds(fold_file=str(root / "folds.json")) == [(0, 4), (2,)]
    assert folds(fold_file="folds.json") == [(0, 4), (2,)]  # below the root, like other files
    (root / "folds.json").write_text('{"folds": [["a"]], "folds": [["b"]]}')
    assert "the key 'folds' is there twice" in error_of("coco-json", root, fold_file="folds.json")
    (root / "folds.json").unlink()
    (tmp_path / "folds.toml").write_text('folds = [["e", "a"], ["c"]]')
    assert folds(fold_file=str(tmp_path / "folds.toml")) == [(0, 4), (2,)]
    assert made("coco-json", root).name == "my-data"
    assert made("coco-json", root, name="x1").name == "x1"
    # Other folds are other data: a checkpoint's fold 0 then has other classes.
    prints = {made("coco-json", root, **options).fingerprint()
              for options in ({}, {"folds": 2}, {"novel": "a"}, {"novel": "b"})}  # fmt: skip
    assert len(prints) == 4
    for words, options in {
        "there is no class 'f'": {"novel": "f"},
        "the class 'a' is there twice": {"novel": "a,a"},
        "give at most 5": {"folds": "6"},
        "-d novel=a and -d folds=2: give one": {"novel": "a", "folds": "2"},
        "that of a registered dataset": {"name": "coco"},
        "'A b' is not valid": {"name": "A b"},
        "no.toml: cannot be read": {"fold_file": "no.toml"},
        "must be >= 1": {"folds": "0"},
    }.items():
        assert words in error_of("coco-json", root, **options)
    (tmp_path / "folds.toml").write_text("folds = [1]")
    assert 'write folds = [["a"' in error_of(
        "coco-json", root, fold_file=str(tmp_path / "folds.toml")
    )


def test_a_checkpoint_of_other_folds_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data-root", str(write_coco(tmp_path / "mugs", annotations=KINDS[:3])), "--workers"]
    train = ["train", "hsnet", "--dataset", "coco-json", *data, "0", "--recipe", "shapes"]
    train += ["--steps", "1", "--validation-episodes", "0", "--out", str(tmp_path / "trainings")]
    assert _run([*train, "--fold", "0", "-d", "folds=3"]) == 0
    (checkpoint,) = (tmp_path / "trainings" / "mugs").rglob("last.safetensors")
    evaluated = ["evaluate", "--checkpoint", str(checkpoint), "--protocol", "coco-json/v1", *data]
    evaluated += ["0", "--out", str(tmp_path / "runs")]
    assert _run([*evaluated, "-d", "folds=3", "--limit", "2"]) == 0
    capsys.readouterr()
    for more in ((), ("--any-fold",)):
        assert _run([*evaluated, "-d", "novel=mug", *more]) == 2
        assert "it was trained on other annotations or folds of mugs" in capsys.readouterr().err
    assert _run([*evaluated, "-d", "folds=3", "--fold", "1"]) == 2
    assert "it was trained for fold 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"categories": [{"id": "x", "name": "a"}]}, "category id 'x' is no number"),
        ({"categories": [{"id": 1, "name": 7}]}, "category 1 has the name 7"),
        ({"categories": [{"id": 1, "name": "a"}] * 2}, "category 1 is there twice"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
         "instances.json: two classes are"),
        ({"categories": [{"id": 1, "name": "\ud800"}]}, "must be a COCO file"),
        ({"categories": []}, "instances.json: there are no classes"),
        ({"categories": [{"id": 1}]}, "an entry has no 'name'"),
        ({"images": [{"id": n, "file_name": "a", "height": 9, "width": 9} for n in (1, 2)],
          "annotations": []}, "two images have the file name 'a'"),
        ({"images": [{"id": n, "file_name": ("a", "./a")[n], "height": 9, "width": 9}
                     for n in (0, 1)], "annotations": []}, "two images have the file name 'a'"),
        ({"images": [], "annotations": []}, "instances.json: lists no images"),
        ({"images": None}, "images is no list"),
        ({"annotations": {}}, "annotations is no list"),
        ({"annotations": [7]}, "annotations[0] is 7, no object"),
        ({"categories": [{"id": 1, "name": "a"}, [2]]}, "categories[1] is [2], no object"),
        ({"categories": [{"id": n, "name": str(n)} for n in range(40_000)]},
         "instances.json: there are 40,000 classes, at most 32,767 can be read"),
        ({"annotations": [{"id": 4, "image_id": 5, "category_id": 99}]}, "of category 99, which"),
        ({"annotations": [{"id": 4, "image_id": "5", "category_id": MUG}]}, "of image '5', which"),
        ({"annotations": [{"id": 4, "image_id": 5, "category_id": MUG,
                           "segmentation": {"size": [HEIGHT, WIDTH], "counts": None}}]},
         "run lengths that are neither a list nor a text"),
    ],
)  # fmt: skip
def test_wrong_annotations_are_one_line(tmp_path: Path, change: Any, words: str) -> None:
    path = write_coco(tmp_path) / "instances.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert words in error_of("coco-json", tmp_path)


def test_wrong_layouts_of_coco_json_are_one_line(tmp_path: Path) -> None:
    assert "no .json file in" in error_of("coco-json", tmp_path)
    write_coco(tmp_path, images="elsewhere/deep")
    assert "its first image photo 0.png is in none of" in error_of("coco-json", tmp_path)
    assert "no such image" in error_of("coco-json", tmp_path, images="{split}")
    assert error_of("coco-json", tmp_path, val="no.json").startswith(f"{tmp_path}/no.json: no such")
    write_coco(tmp_path, "annotations/b.json", categories=[{"id": MUG, "name": "glass"}])
    assert "2 .json files (annotations/b.json, instances.json)" in error_of("coco-json", tmp_path)
    message = error_of("coco-json", tmp_path, val="instances.json", train="annotations/b.json")
    assert f"category {MUG} is 'mug', in {tmp_path}/annotations/b.json it is 'glass'" in message


def test_labels_of_every_depth_are_the_same(tmp_path: Path) -> None:
    values, names = {1: 4, 7: 6, 255: 2}, '1 = "mug"\n7 = "key"'
    grey = made("labels", write_labels(tmp_path / "a", values, names=names))
    deep = made("labels", write_labels(tmp_path / "b", values, names=names, dtype=np.uint16))
    palette = write_labels(tmp_path / "c", values, names=names)
    for path in (palette / "labels").iterdir():
        picture = Image.open(path).copy()
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        assert picture.mode == "P"
        picture.save(path)
    for found in (grey, deep, made("labels", palette, palette="index")):
        assert found.classes == ("mug", "key")
        assert found.image_ids("val") == [str(n) for n in range(8)]
        assert found.class_pixels("3") == {0: 4 * WIDTH, 1: 6 * WIDTH}
        mask = found.mask("3", 1)
        assert mask.dtype == torch.uint8
        assert torch.unique(mask).tolist() == [0, 1, 255]
        assert int((mask == 255).sum()) == 2 * WIDTH
    far = write_labels(tmp_path / "d", {300: 5, 65535: 5, 2: 3}, dtype=np.uint16,
                       names='{"300": "mug", "65535": "key"}', file="classes.json")  # fmt: skip
    found = made("labels", far, ignore="2", background="0,9")
    assert found.class_pixels("0") == {0: 5 * WIDTH, 1: 5 * WIDTH}
    assert int((found.mask("0", 0) == 255).sum()) == 3 * WIDTH
    assert found.fingerprint() != made("labels", far, ignore="none", background="0,2").fingerprint()


def test_splits_of_labels(tmp_path: Path) -> None:
    names = '1 = "mug"'
    for split in ("train", "val"):
        write_labels(tmp_path / "a", {1: 3}, names=names, folder=split, count=3)
    found = made("labels", tmp_path / "a")
    assert found.image_ids("train") == ["train/0", "train/1", "train/2"]
    assert found.mask_path("val/1") == tmp_path / "a" / "labels" / "val" / "1.png"
    root = write_labels(tmp_path / "b", {1: 3}, names=names)
    (root / "val.txt").write_text("1\n2\n")
    listed = made("labels", root, val="val.txt")
    assert listed.image_ids("val") == ["1", "2"]
    assert len(listed.image_ids("train")) == 8
    (root / "val.txt").write_text("11\n")
    assert "val.txt: 11: no such image" in error_of("labels", root, val="val.txt")


def test_wrong_layouts_of_labels_are_one_line(tmp_path: Path) -> None:
    assert "no folder" in error_of("labels", tmp_path)
    root = write_labels(tmp_path, {1: 3, 4: 2}, names='1 = "mug"')
    message = error_of("labels", root)
    assert f"0.png: contains the value 4, which {root}/classes.toml does not name" in message
    assert "-d background=0,4" in message
    assert made("labels", root, background="0,4").class_pixels("0") == {0: 3 * WIDTH}
    assert "no.txt: no such list" in error_of("labels", root, val="no.txt")
    for text, words in {
        "mug = 1": 'mug: write VALUE = "NAME"',
        "1 = ": "is not valid TOML",
        '255 = "mug"': "255 is 'mug' and also the ignored value",
        '1 = "a"\n2 = "a"': "classes.toml: two classes are called 'a'",
        "": "classes.toml: there are no classes",
    }.items():
        (root / "classes.toml").write_text(text)
        assert words in error_of("labels", root)
    (root / "classes.toml").unlink()
    assert "no classes.toml or classes.json in" in error_of("labels", root)
    (root / "classes.toml").write_text('1 = "mug"\n4 = "key"')
    (root / "labels" / "5.png").unlink()
    assert "labels/5.png: no such mask; its image is listed in" in error_of("labels", root)
    (root / "images" / "0.png").write_bytes(b"")
    assert "has the same name" in error_of("labels", root)


def test_pictures_that_labels_do_not_read_are_named(tmp_path: Path) -> None:
    root = write_labels(tmp_path, {1: 3}, names='1 = "mug"')
    assert made("labels", root).problems("val") == []
    (root / "val.txt").write_text("1\n")
    (root / "images" / "7.jpg").rename(root / "images" / "7.gif")
    found = made("labels", root)
    assert len(found.image_ids("val")) == 7
    assert found.problems("val") == [
        f"{path}: is not read, because it is in no pair of image and mask"
        for path in (root / "images" / "7.gif", root / "labels" / "7.png")
    ]
    assert made("labels", root, val="val.txt").problems("val") == []


def test_labels_give_the_rows_of_pascal5i(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "voc_mini" / "VOC2012"
    official = build.dataset("pascal5i", root.parent)
    names = tmp_path / "voc.json"
    names.write_text(json.dumps({str(c + 1): name for c, name in enumerate(official.classes)}))
    options = {
        "values": str(names), "images": "JPEGImages", "labels": "SegmentationClassAug",
        "val": "ImageSets/Segmentation/val.txt", "folds": "4", "fold_order": "contiguous",
    }  # fmt: skip
    own = made("labels", root, **options)
    assert own.image_ids("val") == list(official.image_ids("val"))
    for fold in range(4):
        assert own.fold_classes(fold) == official.fold_classes(fold)
    settings = Evaluation(
        protocol="labels/v1", data_root=root, data_options=options, folds=(0,), limit=30,
        workers=0, out=tmp_path / "runs",
    )  # fmt: skip
    (outcome,) = fssbench.evaluate(settings)
    drawn = Manifest.read(outcome.folder / "manifest.jsonl.gz")
    settings = attrs.evolve(settings, protocol="pascal5i/v1-1k", data_options={})
    same = attrs.evolve(
        drawn, protocol="pascal5i/v1-1k", dataset="pascal5i", fingerprint=official.fingerprint()
    )
    other = prepare(settings).run(same, lambda run: (), ProcessGroup.of(settings), settings)
    rows = [read_rows(each.folder / "rows.csv.gz") for each in (outcome, other)]
    assert len(rows[0]) == 30
    assert rows[0]["intersection_fg"].sum() > 0
    assert rows[0].equals(rows[1])


def test_three_commands_from_a_file_to_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path / "mugs", categories=CATEGORIES[:2], annotations=KINDS[:3])
    assert _run(["data", "check", "coco-json", "--data-root", "mugs"]) == 0
    evaluated = ["evaluate", "--protocol", "coco-json/v1", "--data-root", "mugs"]
    assert _run([*evaluated, "--workers", "0"]) == 0
    assert _run(["board", "build", "runs", "--out", "boards"]) == 0
    page = (tmp_path / "boards" / "mugs.md").read_text()
    assert "## coco-json/v1, 1-shot" in page
    assert "|    1 | prototype | tiny-resnet |" in page
    (record,) = (tmp_path / "boards").rglob("record.json")
    content = json.loads(record.read_text())
    assert content["dataset"]["name"] == "mugs"
    assert content["manifest"]["episodes"] == 16  # each image of each class
    capsys.readouterr()
    assert _run([*evaluated, "--workers", "0", "-d", "val=no.json"]) == 2
    assert capsys.readouterr().err.startswith("fssbench: error: ")


def test_a_class_without_images_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_coco(tmp_path, annotations=KINDS[:2])
    built = ["episodes", "build", "--protocol", "coco-json/v1", "--data-root", str(root)]
    built += ["--out", str(tmp_path / "manifests")]
    assert _run(built) == 2
    message = capsys.readouterr().err
    assert (
        "too few: key (0), pen (0). Complete the dataset, ask for fewer shots, or name " in message
    )
    assert _run([*built, "-d", "novel=mug"]) == 0
    assert "8 episodes" in capsys.readouterr().out


def test_check_lists_suspicious_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = [(90, [box(0, 0, WIDTH, HEIGHT)], 0), *KINDS[:1]]
    write_coco(tmp_path, "train.json", "train", count=12, annotations=KINDS[:2])
    write_coco(tmp_path, "val.json", "val", first=11, count=12, annotations=frame)
    content = json.loads((tmp_path / "val.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 5 * 22]
    (tmp_path / "val.json").write_text(json.dumps(content))
    command = ["data", "check", "coco-json", "--data-root", str(tmp_path)]
    command += ["-d", "train=train.json", "-d", "val=val.json"]
    assert _run(command) == 0
    out = capsys.readouterr().out
    assert "images of 40x30 to 40x30, 22 masks of 104 to 1,200, median 652" in out
    for line in (
        "train: 2 classes have no annotation: key, pen",
        "val: 1 classes have no annotation: key",
        "val: 1 images have no annotation: val/photo 22.png",
        "val: 11 masks of class pen are the frame of the image or all of it: val/photo 11.png, ",
        "val: 1 images are also in train, with the same content: "
        "val/photo 11.png (train/photo 11.png)",
    ):
        assert f"suspicious: {line}" in out
    assert "is in 11 of 12" not in out
    write_coco(tmp_path, "val.json", "val", first=11, count=12, annotations=frame)
    assert _run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["suspicious"]
    assert "val: class mug is in 12 of 12 images" in found
    assert not any("images have no annotation" in line for line in found)


class TestCocoJson(DatasetConformance):
    dataset = "coco-json"
    options: ClassVar = {"folds": 2}

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.root = write_coco(tmp_path_factory.mktemp("own"))


class TestLabels(DatasetConformance):
    dataset = "labels"

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def files(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        root = tmp_path_factory.mktemp("own")
        cls.root = write_labels(root, {1: 4, 2: 6, 255: 2}, names='1 = "mug"\n2 = "key"')
