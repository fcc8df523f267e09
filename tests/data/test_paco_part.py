"""PACO-Part: parts of PACO-LVIS's annotation files, and their official archives."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import fssbench
from fssbench import FssbenchError
from fssbench.cli import _run
from fssbench.data.check import check_image, count_split
from fssbench.data.prepare.prepare import prepare
from fssbench.data.prepare.recipes import RECIPES
from fssbench.episodes.protocol import build_manifest
from fssbench.registry import registry
from fssbench.specs import ProtocolSpec
from fssbench.testing.datasets import CHECKS as DATASET_CHECKS
from fssbench.testing.datasets import DatasetSubject

HEIGHT, WIDTH = 48, 64
CATEGORIES = {
    75: "mug", 90: "dog", 100: "dog:ear", 101: "dog:leg", 102: "mug:handle", 103: "mug:rim",
    104: "dog:tail",
}  # fmt: skip
"""Ids and names as in PACO: objects and ``object:part``."""


def counts_of(row, column, side):
    """Run lengths of a square, column by column."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[row : row + side, column : column + side] = 1
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *edges, flat.size]).tolist()


def annotation_file(folder, numbers):
    annotations = []
    for number in numbers:
        # The dog's leg is there twice: the mask of the class is the union.
        squares = [(90, 2, 2, 40), (100, 4, 4, 8), (101, 20, 4, 8), (101, 20, 20, 8)]
        squares += [(102, 4, 48, 8), (103, 20, 48, 8)]
        for category, row, column, side in squares:
            annotations.append({
                "id": len(annotations) + 1, "image_id": number, "category_id": category,
                "area": side * side, "bbox": [column, row, side, side], "obj_ann_id": 1,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts_of(row, column, side)},
            })  # fmt: skip
    images = [
        {"id": n, "file_name": f"{folder}/{n:012}.jpg", "height": HEIGHT, "width": WIDTH}
        for n in numbers
    ]
    categories = [{"id": i, "name": name} for i, name in CATEGORIES.items()]
    parts = [{"id": 0, "name": "ear", "supercategory": "PART"}]
    return json.dumps({
        "images": images, "annotations": annotations, "categories": categories,
        "part_categories": parts, "attributes": [],
    }).encode()  # fmt: skip


@pytest.fixture
def archives(tmp_path):
    """The official archives, in small; images of val are of COCO's train2017, too."""
    picture = io.BytesIO()
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[4:12, 4:12] = 250, 20, 20
    Image.fromarray(pixels).save(picture, "JPEG")
    files = {
        "paco_lvis_v1": {
            f"paco_lvis_v1_{split}.json": annotation_file(folder, numbers)
            for split, folder, numbers in (
                ("train", "train2017", range(1, 4)), ("val", "train2017", range(4, 10)),
                ("test", "val2017", range(10, 12)),
            )
        },
        "train2017": {f"train2017/{n:012}.jpg": picture.getvalue() for n in range(1, 10)},
        "val2017": {f"val2017/{n:012}.jpg": picture.getvalue() for n in range(10, 12)},
    }  # fmt: skip
    for name, members in files.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as opened:
            for member, data in members.items():
                opened.writestr(member, data)
    return [tmp_path / f"{name}.zip" for name in files]


@pytest.fixture
def root(archives, tmp_path):
    done = prepare(RECIPES["paco-part"], tmp_path / "to", given=archives)
    assert done.marker.counts == {"annotations": 3, "train2017": 9, "val2017": 2}
    return done.data_root


@pytest.fixture
def paco(root):
    return fssbench.dataset("paco-part", root)


def test_classes_are_parts_and_folds_are_interleaved(paco):
    assert paco.classes == ("dog:ear", "dog:leg", "mug:handle", "mug:rim", "dog:tail")
    assert paco.fold_classes(0) == (0, 4)
    assert paco.fold_classes(3) == (3,)
    assert [len(paco.image_ids(split)) for split in paco.splits] == [3, 6, 2]
    # 90 is a whole dog: no class.
    assert paco.class_pixels("000000000004") == {0: 64, 1: 128, 2: 64, 3: 64}
    legs = paco.mask("000000000004", 1).numpy()
    assert legs[20:28, 4:12].all()
    assert legs[20:28, 20:28].all()
    assert paco.image("000000000010").shape == (3, HEIGHT, WIDTH)


def test_conforms_and_data_check_finds_no_problem(paco, root, capsys):
    subject = DatasetSubject(name="paco-part", root=root)
    assert not [c for c in DATASET_CHECKS if c.outcome(subject).verdict == "failed"]
    assert not [problem for i in paco.image_ids("val") for problem in check_image(paco, i)]
    assert count_split(paco, "val").official == 2410
    assert _run(["data", "check", "paco-part", "--data-root", str(root)]) == 0
    assert "dog:leg: 6 images, 768 pixels" in capsys.readouterr().out


def test_a_given_folder_without_the_images_is_one_line(root, tmp_path):
    with pytest.raises(FssbenchError, match="no train2017 or val2017 in .*nowhere; "):
        fssbench.dataset("paco-part", root, images=str(tmp_path / "nowhere"))


def test_evaluate_drops_parts_that_are_too_rare(root, tmp_path):
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol="paco-part/v1-1k", data_root=root,
        folds=(0,), limit=4, workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert outcome.record.scores["miou"] > 0
    manifest = build_manifest(
        registry().get(ProtocolSpec, "paco-part/v1-1k"), fssbench.dataset("paco-part", root),
        fold=0, shots=1,
    )  # fmt: skip
    assert manifest.dropped == ((4, "dog:tail"),)
    assert {episode.class_id for episode in manifest.episodes} == {0}


def test_images_may_be_elsewhere(root, tmp_path):
    (root / "coco").mkdir()
    for name in ("train2017", "val2017"):
        shutil.move(root / name, root / "coco" / name)
    assert fssbench.dataset("paco-part", root).image("000000000010").shape[0] == 3
    shutil.move(root / "coco", tmp_path / "else")
    with pytest.raises(FssbenchError, match="no train2017 or val2017 in .* give -d images=FOLDER"):
        fssbench.dataset("paco-part", root)
    paco = fssbench.dataset("paco-part", root, images=str(tmp_path / "else"))
    assert paco.image("000000000010").shape[0] == 3


def test_a_wrong_layout_is_one_line(root, capsys):
    path = root / "annotations" / "paco_lvis_v1_val.json"
    content = json.loads(path.read_text())
    content["categories"] = [{"id": 1, "name": "dog"}]
    path.write_text(json.dumps(content))
    assert _run(["data", "check", "paco-part", "--data-root", str(root)]) == 2
    assert "has 0 categories object:part; it must be" in capsys.readouterr().err
    path.unlink()
    assert _run(["data", "check", "paco-part", "--data-root", str(root)]) == 2
    assert f"no {path}; --data-root must name" in capsys.readouterr().err


def test_an_archive_without_all_annotations_is_refused(archives, tmp_path):
    with zipfile.ZipFile(archives[0], "w") as opened:
        opened.writestr("paco_lvis_v1_train.json", annotation_file("train2017", [1]))
    with pytest.raises(FssbenchError, match=r"no annotations/paco_lvis_v1_val.json"):
        prepare(RECIPES["paco-part"], tmp_path / "gaps", given=archives)
