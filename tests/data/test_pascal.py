from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fssbench.build import protocol_dataset
from fssbench.data.class_names import common_names
from fssbench.data.coco import Coco
from fssbench.data.dataset import IGNORE
from fssbench.data.pascal import CLASSES, Pascal, PascalConfig
from fssbench.errors import FssbenchError

LABELS = np.zeros((6, 8), np.uint8)
LABELS[0] = 255
LABELS[1, :3] = 1  # aeroplane
LABELS[2:4] = 20  # tvmonitor


def add_image(voc: Path, image_id: str, labels: np.ndarray, *folders: str) -> None:
    height, width = labels.shape
    (voc / "JPEGImages").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (200, 10, 10)).save(voc / "JPEGImages" / f"{image_id}.jpg")
    for folder in folders or ("SegmentationClassAug",):
        (voc / folder).mkdir(exist_ok=True)
        mask = Image.fromarray(labels)
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        mask.save(voc / folder / f"{image_id}.png")


def add_list(voc: Path, name: str, text: str) -> None:
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    (voc / "ImageSets" / "Segmentation" / name).write_text(text)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    voc = tmp_path / "data" / "VOC2012"
    for image_id in ("2007_000033", "2007_000042"):
        add_image(voc, image_id, LABELS)
    add_image(voc, "2008_000001", LABELS // 20)
    add_list(voc, "val.txt", "2007_000042\n2007_000033\n")
    add_list(voc, "train_aug.txt", "2008_000001\n")
    return voc


def error_of(function, *arguments, **keywords) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_classes_and_folds(voc: Path) -> None:
    pascal = Pascal(root=voc)
    assert len(CLASSES) == 20
    assert CLASSES[0] == "aeroplane"
    assert CLASSES[14] == "person"
    assert [pascal.fold_classes(fold) for fold in range(4)] == [
        tuple(range(start, start + 5)) for start in (0, 5, 10, 15)
    ]
    assert error_of(pascal.fold_classes, 4) == "pascal5i has no fold 4; it has folds 0 to 3"


# RePRI's figures/coco2pascal.png; the same numbers are in the data/pascal.py of FS-SAM2, its folds
# 10 to 13.
COCO_FOLDS = (
    (0, 3, 8, 10, 11, 14), (1, 5, 12, 17), (2, 6, 15, 16, 18, 19), (4, 7, 9, 13),
)  # fmt: skip


def test_the_folds_of_coco(voc: Path) -> None:
    pascal = Pascal(root=voc, config=PascalConfig(folds="coco"))
    assert tuple(pascal.fold_classes(fold) for fold in range(4)) == COCO_FOLDS
    assert sorted(c for fold in COCO_FOLDS for c in fold) == list(range(20))
    assert (pascal.name, pascal.folds_of) == ("pascal5i", "coco20i")
    assert "no fold 4" in error_of(pascal.fold_classes, 4)
    plain = Pascal(root=voc)
    assert plain.folds_of == "pascal5i"
    assert plain.fold_classes(0) == (0, 1, 2, 3, 4)
    assert pascal.fingerprint() != plain.fingerprint()
    assert pickle.loads(pickle.dumps(pascal)).fold_classes(1) == COCO_FOLDS[1]


def test_the_protocol_of_these_folds(voc: Path) -> None:
    for name, folds in (("pascal5i/v1-1k-coco-folds", COCO_FOLDS), ("pascal5i/v1-1k", ())):
        pascal = protocol_dataset(name, voc)
        assert pascal.fold_classes(1) == (folds or Pascal.novel_classes)[1]


def test_novel_in_pascal_is_novel_in_the_same_fold_of_coco(voc: Path) -> None:
    """Each class is trained on in all folds of COCO-20i but its own."""
    pascal = Pascal(root=voc, config=PascalConfig(folds="coco"))
    for fold in range(4):
        base = [c for other in range(4) if other != fold for c in Coco.novel_classes[other]]
        trained = [Coco.classes[c] for c in base]
        tested = [CLASSES[c] for c in pascal.fold_classes(fold)]
        assert common_names(tested, trained) == ()
        others = [name for name in CLASSES if name not in tested]
        assert common_names(others, trained) == tuple(others)


def test_masks_keep_void_borders_whatever_the_class(voc: Path) -> None:
    pascal = Pascal(root=voc)
    for class_id in (0, 7, 19):
        mask = pascal.mask("2007_000033", class_id).numpy()
        wanted = np.where(LABELS == 255, IGNORE, class_id + 1 == LABELS)
        assert mask.dtype == np.uint8
        assert np.array_equal(mask, wanted)
    assert pascal.image("2007_000033").shape == (3, 6, 8)


def test_pixels_count_neither_void_nor_background(voc: Path) -> None:
    pascal = Pascal(root=voc)
    assert pascal.class_pixels("2007_000033") == {0: 3, 19: 16}
    assert pascal.class_pixels("2008_000001") == {0: 16, 11: 8}  # 255 // 20 = 12
    assert "2007_000099" in error_of(pascal.class_pixels, "2007_000099")


@pytest.mark.parametrize("place", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_the_root_may_be_three_folders(voc: Path, tmp_path: Path, place: str) -> None:
    root = tmp_path / "elsewhere"
    shutil.copytree(voc, root / place)
    assert Pascal(root=root).image_ids("val") == ("2007_000033", "2007_000042")


def test_lists_of_paths(voc: Path) -> None:
    lines = (
        "/JPEGImages/2007_000042.jpg /SegmentationClassAug/2007_000042.png\r\n"
        "JPEGImages/2007_000033.jpg SegmentationClassAug/2007_000033.png\n\n"
    )
    add_list(voc, "val.txt", lines)
    assert Pascal(root=voc).image_ids("val") == ("2007_000033", "2007_000042")


def test_plain_voc_has_its_own_masks_and_list(tmp_path: Path) -> None:
    voc = tmp_path / "VOC2012"
    add_image(voc, "a", LABELS, "SegmentationClass")
    add_list(voc, "train.txt", "a\n")
    add_list(voc, "val.txt", "a\n")
    plain = Pascal(root=tmp_path)
    assert plain.labels == "SegmentationClass"
    assert plain.image_ids("train") == ("a",)
    add_image(voc, "a", LABELS * 0, "SegmentationClassAug")
    augmented = Pascal(root=tmp_path)
    assert augmented.labels == "SegmentationClassAug"
    assert augmented.class_pixels("a") == {}
    chosen = Pascal(root=tmp_path, config=PascalConfig(labels="SegmentationClass"))
    assert chosen.class_pixels("a") == {0: 3, 19: 16}
    message = error_of(augmented.image_ids, "train")
    assert "no train_aug.txt or trainaug.txt, the train list" in message
    add_list(voc, "trainaug.txt", "a\n")
    assert augmented.image_ids("train") == ("a",)


def test_a_training_list_of_ones_own(voc: Path, tmp_path: Path) -> None:
    """PFENet's list has the paths of image and mask on each line."""
    add_image(voc, "2009_000001", LABELS // 20)
    add_list(voc, "train_aug.txt", "2008_000001\n2009_000001\n")
    path = tmp_path / "voc_sbd_merge_noduplicate.txt"
    path.write_text("JPEGImages/2009_000001.jpg SegmentationClassAug/2009_000001.png\n")
    chosen = Pascal(root=voc, config=PascalConfig(train_list=str(path)))
    assert chosen.image_ids("train") == ("2009_000001",)
    assert chosen.image_ids("val") == Pascal(root=voc).image_ids("val")
    assert chosen.listed_in("train") == path.name
    assert chosen.fingerprint("train") != Pascal(root=voc).fingerprint("train")
    assert chosen.fingerprint("val") == Pascal(root=voc).fingerprint("val")
    missing = Pascal(root=voc, config=PascalConfig(train_list=str(tmp_path / "none.txt")))
    assert "none.txt: cannot be read" in error_of(missing.image_ids, "train")


def test_a_split_that_is_not_there(voc: Path) -> None:
    assert "no split 'test'" in error_of(Pascal(root=voc).image_ids, "test")
    add_list(voc, "val.txt", "\n")
    assert "val.txt: lists no image" in error_of(Pascal(root=voc).image_ids, "val")


def test_wrong_roots(tmp_path: Path) -> None:
    assert error_of(Pascal, root=None) == (
        "pascal5i needs --data-root, the folder that holds VOC2012"
    )
    assert f"no folder {tmp_path}/no; --data-root" in error_of(Pascal, root=tmp_path / "no")
    assert f"no folder VOC2012 below {tmp_path}; " in error_of(Pascal, root=tmp_path)
    (tmp_path / "VOC2012" / "JPEGImages").mkdir(parents=True)
    message = error_of(Pascal, root=tmp_path)
    assert "no folder SegmentationClassAug or SegmentationClass in" in message
    message = error_of(Pascal, root=tmp_path, config=PascalConfig(labels="SegmentationClass"))
    assert "no folder SegmentationClass in" in message


def test_a_missing_mask_names_the_list(voc: Path) -> None:
    path = voc / "SegmentationClassAug" / "2007_000033.png"
    path.unlink()
    pascal = Pascal(root=voc)
    wanted = f"{path}: no such mask; its image is listed in val.txt"
    assert error_of(pascal.prepare, "val") == wanted
    assert error_of(pascal.fingerprint, "val") == wanted
    assert error_of(pascal.mask, "2007_000033", 0).startswith(f"{path}: no such mask; ")


def test_a_missing_image(voc: Path) -> None:
    path = voc / "JPEGImages" / "2007_000033.jpg"
    path.unlink()
    pascal = Pascal(root=voc)
    for function in (pascal.image, lambda image_id: pascal.mask(image_id, 0)):
        assert error_of(function, "2007_000033").startswith(f"{path}: no such image; ")


def test_a_mask_of_another_size(voc: Path) -> None:
    Image.new("RGB", (9, 6)).save(voc / "JPEGImages" / "2007_000033.jpg")
    message = error_of(Pascal(root=voc).mask, "2007_000033", 0)
    assert "2007_000033.png: the mask is 8x6, its image 2007_000033.jpg is 9x6" in message
    assert error_of(Pascal(root=voc).prepare, "val") == message


def test_a_mask_with_an_unknown_number(voc: Path) -> None:
    add_image(voc, "2007_000033", np.full((6, 8), 21, np.uint8))
    message = error_of(Pascal(root=voc).mask, "2007_000033", 0)
    assert message.endswith(
        "2007_000033.png: contains the value 21; a mask of pascal5i has 0 to 20 and 255"
    )


def test_a_pickled_copy_leaves_the_index_behind(voc: Path) -> None:
    pascal = Pascal(root=voc)
    empty = len(pickle.dumps(pascal))
    pascal.prepare("val")
    copy = pickle.loads(pickle.dumps(pascal))
    assert len(pickle.dumps(pascal)) < empty + 400
    (voc / "SegmentationClassAug" / "2007_000033.png").unlink()  # the index comes from the cache
    assert copy.class_pixels("2007_000033") == {0: 3, 19: 16}


# Images per class with at least one pixel, from the table that describes the real images.
REAL = {
    "train": (15, 17, 23, 19, 26, 15, 30, 31, 31, 20, 20, 39, 21, 20, 87, 20, 20, 20, 19, 23),
    "val": (15, 12, 15, 10, 17, 15, 21, 17, 19, 15, 15, 16, 15, 16, 64, 16, 16, 15, 15, 15),
}


@pytest.mark.realdata
@pytest.mark.parametrize(("split", "images"), [("train", 250), ("val", 200)])
def test_real_images(shared_data: Path, split: str, images: int) -> None:
    pascal = Pascal(root=shared_data / "voc_mini")
    ids = pascal.image_ids(split)
    assert len(ids) == images
    counts = [0] * 20
    for image_id in ids:
        for class_id in pascal.class_pixels(image_id):
            counts[class_id] += 1
    assert tuple(counts) == REAL[split]


@pytest.mark.realdata
def test_real_masks(shared_data: Path) -> None:
    pascal = Pascal(root=shared_data / "voc_mini")
    for image_id in pascal.image_ids("val")[:20]:
        image = pascal.image(image_id)
        for class_id, pixels in pascal.class_pixels(image_id).items():
            mask = pascal.mask(image_id, class_id)
            assert mask.shape == image.shape[1:]
            assert set(mask.unique().tolist()) <= {0, 1, 255}
            assert int((mask == 1).sum()) == pixels


def test_images_of_both_lists_are_named(voc: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Pascal(root=voc).problems("train") == []
    add_list(voc, "train_aug.txt", "2008_000001\n2007_000042\n")
    pascal = Pascal(root=voc)
    line = "2007_000042: is in train_aug.txt and val.txt; remove it from one"
    assert pascal.problems("train") == [line]
    assert pascal.problems("val") == ()
    pascal.prepare("train")
    assert line in caplog.text
    (voc / "ImageSets" / "Segmentation" / "val.txt").unlink()
    assert Pascal(root=voc).problems("train") == ()


def test_the_meaning_of_palettes_is_part_of_the_fingerprint(voc: Path) -> None:
    by_index = Pascal(root=voc, config=PascalConfig(palette="index"))
    assert by_index.class_pixels("2007_000033") == {0: 3, 19: 16}
    assert by_index.fingerprint("val") != Pascal(root=voc).fingerprint("val")
