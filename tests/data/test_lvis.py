"""LVIS-92i: the files of LVIS v1, folds, images that are annotated in part, and the archives."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fssbench
from fssbench import FssbenchError
from fssbench.cli import _run
from fssbench.data import lvis
from fssbench.data.check import count_split
from fssbench.data.lvis import Lvis92i, LvisConfig
from fssbench.data.prepare.prepare import prepare
from fssbench.data.prepare.recipes import RECIPES
from fssbench.episodes.protocol import build_manifest
from fssbench.registry import registry
from fssbench.specs import ProtocolSpec
from fssbench.testing.datasets import CHECKS as DATASET_CHECKS
from fssbench.testing.datasets import DatasetSubject

HEIGHT, WIDTH = 40, 60
VAL, TRAIN = range(1, 31), range(101, 107)
NAMES = {number: f"thing_{number:02}" for number in range(1, 25)}
COMMON, RARE = range(1, 21), 21
"""Categories 1 to 20 are in seven or more images each, 21 in two, 22 in one, the others in none."""


def square(category: int, image: int) -> list[float]:
    x, y = 2 * (category % 12) + image % 7, 6 * (category // 12) + image % 9
    return [x, y, x + 5, y, x + 5, y + 4, x, y + 4]


def in_image(category: int, image: int) -> bool:
    if category in COMMON:
        return (image + category) % 3 == 0 or (image == 1 and category == 1)
    return image in {21: (3, 4), 22: (5,)}.get(category, ())


def coco_folder(image: int) -> str:
    """LVIS's val holds images of COCO's train2017 too."""
    return "val2017" if image in VAL and image % 2 else "train2017"


def content(images: Any, partial: dict[int, list[int]]) -> dict[str, Any]:
    """The keys and fields of the official files: no file_name, no iscrowd."""
    pairs = [(c, i) for i in images for c in NAMES if in_image(c, i)]
    return {
        "info": {"contributor": "Agrim Gupta, Piotr Dollar, Ross Girshick", "version": "1"},
        "annotations": [
            {"bbox": [0, 0, 5, 4], "category_id": c, "image_id": i, "id": n, "area": 20.0,
             "segmentation": [square(c, i)]}
            for n, (c, i) in enumerate(sorted(pairs), start=1)  # of an image apart from each other
        ],
        "images": [
            {"id": i, "height": HEIGHT, "width": WIDTH, "license": 1, "neg_category_ids": [24],
             "not_exhaustive_category_ids": partial.get(i, []), "date_captured": "2013-11-14",
             "coco_url": f"http://images.cocodataset.org/{coco_folder(i)}/{i:012d}.jpg",
             "flickr_url": "http://farm9.staticflickr.com/abc.jpg"}
            for i in images
        ],
        "licenses": [{"id": 1, "name": "Attribution-NonCommercial-ShareAlike License"}],
        "categories": [
            {"id": n, "name": name, "synset": f"{name}.n.01", "def": "a thing", "frequency": "c",
             "synonyms": [name], "image_count": 9, "instance_count": 9}
            for n, name in NAMES.items()
        ],
    }  # fmt: skip


def picture(image: int) -> bytes:
    pixels = np.random.default_rng(image).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG")
    return data.getvalue()


def files(partial: dict[int, list[int]] | None = None) -> dict[str, bytes]:
    made = {f"{coco_folder(i)}/{i:012d}.jpg": picture(i) for i in (*VAL, *TRAIN)}
    for split, images in (("val", VAL), ("train", TRAIN)):
        text = json.dumps(content(images, partial or {}))
        made[f"annotations/lvis_v1_{split}.json"] = text.encode()
    return made


def write(root: Path, partial: dict[int, list[int]] | None = None) -> Path:
    for name, data in files(partial).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "LVIS")


def protocol(name: str) -> ProtocolSpec:
    return registry().get(ProtocolSpec, name)


def error_of(function: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- classes and folds ----------------------------------------------------------------------------


def test_folds_are_interleaved_over_categories_with_two_images(root: Path) -> None:
    made = Lvis92i(root=root)
    assert made.classes == tuple(NAMES.values())
    novel = [made.fold_classes(fold) for fold in range(10)]
    assert novel[0] == (0, 10, 20)  # category 21 has two images
    assert novel[1] == (1, 11)
    assert sorted(c for fold in novel for c in fold) == list(range(21))
    assert "folds 0 to 9" in error_of(made.fold_classes, 10)


def test_the_categories_with_the_most_images_are_in_folds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lvis, "NOVEL", 20)
    made = Lvis92i(root=root)
    assert sorted(c for fold in range(10) for c in made.fold_classes(fold)) == list(range(20))
    monkeypatch.setattr(lvis, "NOVEL", 3)
    # Category 1 has eleven images; of those with ten the lower ids are in folds.
    assert [Lvis92i(root=root).fold_classes(fold) for fold in range(4)] == [(0,), (1,), (2,), ()]


def test_the_official_size_has_92_classes_a_fold(tmp_path: Path) -> None:
    """Of 1,203 categories 1,000 are in two to eleven images: 920 are in folds."""
    images, categories = range(1, 61), range(1, 1204)
    one = content(VAL, {})
    path = write(tmp_path) / "annotations" / "lvis_v1_val.json"
    annotations = [
        {"id": 1000 * c + n, "image_id": 1 + (7 * c + n) % 60, "category_id": c,
         "segmentation": [[0, 0, 4, 0, 4, 4, 0, 4]]}
        for c in categories if c <= 1000 for n in range(2 + c % 10)
    ]  # fmt: skip
    path.write_text(json.dumps({
        "annotations": annotations,
        "images": [{**one["images"][0], "id": i} for i in images],
        "categories": [{"id": c, "name": f"c{c}"} for c in categories],
    }))  # fmt: skip
    made = Lvis92i(root=tmp_path)
    folds = [made.fold_classes(fold) for fold in range(10)]
    assert {len(fold) for fold in folds} == {92}
    # The 80 that are left out are those of two images with the highest ids.
    counts = np.array([2 + c % 10 for c in range(1, 1001)])
    left_out = [c for c in range(1000) if counts[c] == 2][-80:]
    assert set(range(1000)) - {c for fold in folds for c in fold} == set(left_out)


# --- images and masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
def test_images_of_a_split_are_in_both_folders_of_coco(root: Path, nested: bool) -> None:
    if nested:
        (root / "images").mkdir()
        for name in ("train2017", "val2017"):
            shutil.move(root / name, root / "images" / name)
    made = Lvis92i(root=root)
    assert len(made.image_ids("val")) == len(VAL)
    for number in (1, 2, 101):
        image_id = f"{number:012d}"
        assert made.image(image_id).shape == (3, HEIGHT, WIDTH)
        assert made.image_path(image_id).parent.name == coco_folder(number)
    assert len(made.image_ids("train")) == len(TRAIN)
    copy = pickle.loads(pickle.dumps(made))
    assert copy.fold_classes(0) == made.fold_classes(0)


def test_masks_are_those_of_the_annotations_in_any_order(root: Path) -> None:
    made = Lvis92i(root=root)
    for image in VAL:
        image_id = f"{image:012d}"
        wanted = {c - 1: 20 for c in NAMES if in_image(c, image)}
        assert made.class_pixels(image_id) == wanted
        for class_id in wanted:
            x, y = square(class_id + 1, image)[:2]
            mask = made.mask(image_id, class_id)
            assert int(mask.sum()) == int(mask[y : y + 4, x : x + 5].sum()) == 20


def test_images_that_are_annotated_in_part(tmp_path: Path) -> None:
    """Image 2 has categories 1, 4, 7, …; of category 4 some instances are not annotated."""
    root = write(tmp_path, {2: [4, 9]})
    strict, used = Lvis92i(root=root), Lvis92i(root=root, config=LvisConfig(partial="use"))
    image_id = f"{2:012d}"
    assert 3 not in strict.class_pixels(image_id)
    assert strict.class_pixels(image_id)[6] == 20
    x, y = square(4, 2)[:2]
    assert (strict.mask(image_id, 3)[y : y + 4, x : x + 5] == 255).all()
    assert int((strict.mask(image_id, 3) == 1).sum()) == 0
    assert used.class_pixels(image_id)[3] == 20
    assert strict.fingerprint("val") != used.fingerprint("val")
    assert [strict.fold_classes(f) for f in range(10)] == [used.fold_classes(f) for f in range(10)]


def test_the_annotations_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lvis92i(root=root).fold_classes(0)
    monkeypatch.delattr("fssbench.data.coco_instances.read_annotations")
    monkeypatch.delattr("fssbench.data.coco_json.read_categories")
    assert Lvis92i(root=root).fold_classes(1) == (1, 11)


# --- wrong files ----------------------------------------------------------------------------------


def test_wrong_layouts_are_one_line(root: Path, tmp_path: Path, capsys: Any) -> None:
    def fails(*arguments: Any) -> str:
        assert _run(["data", "check", "lvis92i", *map(str, arguments)]) == 2
        *_, last = capsys.readouterr().err.splitlines()
        assert last.startswith("fssbench: error: ")
        return last

    needs = "the folder that holds annotations/ and the images"
    assert f"lvis92i needs --data-root, {needs}" in fails()
    assert f"no folder {tmp_path / 'no'}; --data-root" in fails("--data-root", tmp_path / "no")
    folder = root / "annotations"
    assert f"no {folder / 'annotations'}" in fails("--data-root", folder)
    path = folder / "lvis_v1_val.json"
    good = json.loads(path.read_text())
    good["images"][3].pop("coco_url")
    path.write_text(json.dumps(good))
    assert "an entry has no 'coco_url'" in fails("--data-root", root)
    path.write_text("{")
    assert "is not a complete JSON file" in fails("--data-root", root)


def test_train_and_val_of_two_releases(root: Path) -> None:
    path = root / "annotations" / "lvis_v1_train.json"
    path.write_text(path.read_text().replace("thing_05", "other_thing"))
    message = error_of(Lvis92i(root=root).prepare, "train")
    assert message == (
        f"{path}: category 5 is 'other_thing', in the file of the other split it is 'thing_05'; "
        "take the files of one release"
    )


def test_an_image_that_is_missing(root: Path) -> None:
    (root / "val2017" / f"{1:012d}.jpg").unlink()
    made = Lvis92i(root=root)
    assert "val2017/000000000001.jpg: no such image" in error_of(made.image, f"{1:012d}")


# --- protocols ------------------------------------------------------------------------------------


def test_every_number_of_shots_has_the_same_classes(root: Path) -> None:
    made = Lvis92i(root=root)
    for shots in (1, 5):
        manifest = build_manifest(protocol("lvis92i/v1-1k"), made, fold=0, shots=shots)
        assert [name for _, name in manifest.classes] == ["thing_01", "thing_11"]
        assert [name for _, name in manifest.dropped] == ["thing_21"]
    every = build_manifest(protocol("lvis92i/v1-1k-all"), made, fold=0, shots=1)
    assert [name for _, name in every.classes] == ["thing_01", "thing_11", "thing_21"]
    message = error_of(build_manifest, protocol("lvis92i/v1-1k-all"), made, fold=0, shots=5)
    assert "too few: thing_21 (2)" in message
    assert "use lvis92i/v1-1k, which leaves such classes out" in message


def test_evaluate_and_check(root: Path, tmp_path: Path, capsys: Any) -> None:
    assert _run(["data", "check", "lvis92i", "--data-root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "val: 30 of 19,809 images" in out
    assert "train: 6 of 100,170 images" in out
    assert out.endswith("fine\n")
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol="lvis92i/v1-1k-all", folds=(0,),
        limit=6, data_root=root, workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert outcome.record.dataset.name == "lvis92i"
    used = Lvis92i(root=root, config=LvisConfig(partial="use"))
    assert outcome.record.dataset.fingerprint == used.fingerprint("val")
    assert outcome.record.manifest.episodes == 6
    assert 0 <= outcome.record.scores["miou"] <= 100


def test_counts_are_compared_with_the_complete_dataset(root: Path) -> None:
    found = count_split(Lvis92i(root=root), "val")
    assert found.missing == ("19,779 of the 19,809 images",)


def test_conforms(root: Path) -> None:
    subject = DatasetSubject(name="lvis92i", root=root)
    assert not [c for c in DATASET_CHECKS if c.outcome(subject).verdict != "passed"]


# --- archives -------------------------------------------------------------------------------------


def archives(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name, data in files().items():
        parent, _, file = name.partition("/")
        key = file if parent == "annotations" else parent
        found[key] = folder / f"{key}.zip"
        with zipfile.ZipFile(found[key], "a") as opened:
            opened.writestr(file if parent == "annotations" else name, data)
    return found


def test_the_official_archives_are_laid_out_as_the_dataset_reads_them(tmp_path: Path) -> None:
    given = list(archives(tmp_path).values())
    assert len(given) == 4
    to = tmp_path / "to"
    done = prepare(RECIPES["lvis92i"], to, given=given)
    val = sum(coco_folder(i) == "val2017" for i in VAL)
    train = len(VAL) + len(TRAIN) - val
    assert dict(done.marker.counts) == {"annotations": 2, "train2017": train, "val2017": val}
    made = Lvis92i(root=done.data_root)
    assert made.fold_classes(0) == (0, 10, 20)
    assert made.image(f"{101:012d}").shape == (3, HEIGHT, WIDTH)
    assert prepare(RECIPES["lvis92i"], to).already


def test_only_images_that_data_prepare_has_made_are_shared(tmp_path: Path) -> None:
    found = archives(tmp_path)
    to = tmp_path / "to"
    (to / "val2017").mkdir(parents=True)
    (to / "val2017" / "mine.jpg").write_bytes(b"mine")
    message = error_of(prepare, RECIPES["lvis92i"], to, given=list(found.values()))
    assert "val2017: already exists and was not made by data prepare" in message
    shutil.rmtree(to)
    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as opened:
        for split in ("train", "val"):
            opened.writestr(f"annotations/instances_{split}2017.json", b"{}")
    images = [found["train2017"], found["val2017"]]
    prepare(RECIPES["coco20i-2017"], to, given=[tmp_path / "coco.zip", *images])
    done = prepare(RECIPES["lvis92i"], to, given=list(found.values()))
    assert done.marker.counts["annotations"] == 2
    assert len(Lvis92i(root=done.data_root).image_ids("val")) == len(VAL)
