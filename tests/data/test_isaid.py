"""iSAID-5i: tiles with label maps in the layout of the authors' archive."""

from __future__ import annotations

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

SIDE = 256


def labels_of(number):
    """A square of class `number` mod 5 and one of value 255."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[40:120, 30 + number : 110 + number] = number % 5 + 1
    labels[:8, :8] = 255
    return labels


@pytest.fixture
def root(tmp_path):
    for split, count in (("train", 2), ("val", 15)):
        images, masks = tmp_path / split / "images", tmp_path / split / "semantic_png"
        images.mkdir(parents=True)
        masks.mkdir()
        for number in range(count):
            name = f"P{number:04}_0_256_0_256"
            labels = labels_of(number)
            Image.fromarray(labels).save(masks / f"{name}_instance_color_RGB.png")
            picture = np.stack([labels * 20, labels * 30, labels * 10], axis=-1)
            Image.fromarray(picture).save(images / f"{name}.png")
    return tmp_path


@pytest.fixture
def isaid(root):
    return fssbench.dataset("isaid5i", root)


def test_tiles_folds_and_masks(isaid):
    assert len(isaid.classes) == 15
    assert isaid.fold_classes(0) == (0, 1, 2, 3, 4)
    assert [isaid.classes[c] for c in isaid.fold_classes(2)] == [
        "swimming_pool", "roundabout", "soccer_ball_field", "plane", "harbor",
    ]  # fmt: skip
    assert len(isaid.image_ids("val")) == 15
    assert isaid.image_ids("train") == ("train/P0000_0_256_0_256", "train/P0001_0_256_0_256")
    mask = isaid.mask("val/P0006_0_256_0_256", 1).numpy()
    np.testing.assert_array_equal(mask == 1, labels_of(6) == 2)
    assert (mask[:8, :8] == 255).all()
    assert isaid.class_pixels("val/P0006_0_256_0_256") == {1: 80 * 80}


def test_conforms_and_data_check_finds_no_problem(isaid, root, capsys):
    subject = DatasetSubject(name="isaid5i", root=root)
    assert not [c for c in DATASET_CHECKS if c.outcome(subject).verdict == "failed"]
    assert not [problem for i in isaid.image_ids("val") for problem in check_image(isaid, i)]
    counted = count_split(isaid, "val")
    assert (counted.folds[0].pairs, counted.official) == (15, 6363)
    assert _run(["data", "check", "isaid5i", "--data-root", str(root)]) == 0
    assert "fold 0  ship: 3 images" in capsys.readouterr().out


def test_evaluate(root, tmp_path):
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol="isaid5i/v1-1k", data_root=root,
        folds=(0,), limit=6, workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert outcome.record.scores["miou"] > 20


@pytest.mark.parametrize("lost", ["images", "semantic_png"])
def test_a_wrong_layout_is_one_line(root, lost, capsys):
    shutil.rmtree(root / "val" / lost)
    assert _run(["data", "check", "isaid5i", "--data-root", str(root)]) == 2
    assert f"no folder {root / 'val' / lost}; --data-root must name" in capsys.readouterr().err


def test_what_is_no_label_map_of_isaid_is_named(root, isaid):
    name = "P0000_0_256_0_256"
    path = root / "val" / "semantic_png" / f"{name}_instance_color_RGB.png"
    Image.fromarray(np.full((SIDE, SIDE), 16, np.uint8)).save(path)
    with pytest.raises(FssbenchError, match="the value 16; a mask of isaid5i has 0 to 15 and 255"):
        isaid.count_pixels(f"val/{name}")
    Image.new("RGB", (SIDE, SIDE), (0, 0, 63)).save(path)  # a ship in the official colours
    with pytest.raises(FssbenchError, match="RGB .*; the colour masks of iSAID have") as error:
        isaid.count_pixels(f"val/{name}")
    assert "-d " not in str(error.value)
    path.unlink()
    with pytest.raises(FssbenchError, match="no such mask; a tile needs images/NAME.png and"):
        isaid.count_pixels(f"val/{name}")
    shutil.rmtree(root / "train" / "images")
    with pytest.raises(FssbenchError, match="no tiles"):
        isaid.image_ids("train")


def test_insid3s_draw(root, isaid, caplog):
    """The draws of INSID3's datasets/isaid.py with NumPy's global generator and seed 0."""
    names = [f"P{number:04}_0_256_0_256" for number in (3, 1, 0, 8, 5, 10, 6, 14, 9, 2, 12, 4)]
    pairs = [(name, int(name[1:5]) % 5) for name in names]
    (root / "splits" / "val").mkdir(parents=True)
    lines = "".join(f"{name}__{class_id + 1}\n" for name, class_id in pairs)
    (root / "splits" / "val" / "fold0.txt").write_text(lines)
    generator, expected = np.random.RandomState(0), []
    for query, class_id in pairs:
        images, supports = [name for name, c in pairs if c == class_id], []
        while len(supports) < 2:
            drawn = generator.choice(images, 1, replace=False)[0]
            if drawn != query:
                supports.append(f"val/{drawn}")
        expected.append((class_id, f"val/{query}", tuple(supports)))
    protocol = registry().get(ProtocolSpec, "isaid5i/insid3")
    for lists in (root, root / "splits"):
        manifest = build_manifest(protocol, isaid, fold=0, shots=2, lists=lists)
        assert [(e.class_id, e.query, e.support) for e in manifest.episodes] == expected
    assert "fold0.txt: lists 12 pairs; the authors' own list has 3108" in caplog.text
    (root / "splits" / "val" / "fold0.txt").write_text("P0000_0_256_0_256__6\n")
    with pytest.raises(FssbenchError, match="line 1: class number 6 is not in fold 0, which has 1"):
        build_manifest(protocol, isaid, fold=0, shots=1, lists=root)


def test_the_archive_of_the_authors(root, tmp_path):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("__MACOSX/iSAID_patches/val/images/._P0000_0_256_0_256.png", b"no tile")
        for path in root.glob("*/*/*.png"):
            opened.write(path, f"iSAID_patches/{path.relative_to(root)}")
    done = prepare(RECIPES["isaid5i"], tmp_path / "to", given=[archive])
    assert dict(done.marker.counts) == {"images": 15, "masks": 15}
    data = fssbench.dataset("isaid5i", done.data_root)
    assert [len(data.image_ids(split)) for split in data.splits] == [2, 15]
    assert prepare(RECIPES["isaid5i"], tmp_path / "to").already


def test_another_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:  # the colour masks of iSAID
        opened.writestr("val/Semantic_masks/P0003_instance_color_RGB.png", b"")
    with pytest.raises(FssbenchError, match="is no archive of isaid5i "):
        prepare(RECIPES["isaid5i"], tmp_path / "to", given=[tmp_path / "a.zip"])
