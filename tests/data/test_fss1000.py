from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fssbench.data.fss1000 import Fss1000, Fss1000Config
from fssbench.errors import FssbenchError

CLASSES = ("abacus", "bee_house", "cello", "dingo")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in CLASSES:
        folder = tmp_path / "fewshot_data" / name
        folder.mkdir(parents=True)
        for number in (1, 2, 10):
            Image.new("RGB", (8, 6)).save(folder / f"{number}.jpg")
            mask = np.zeros((6, 8, 4), np.uint8)
            mask[..., 3] = 255
            mask[0, :, :3] = 127  # a soft border
            mask[1, :, :3] = 128
            mask[2, :, :3] = 255
            Image.fromarray(mask).save(folder / f"{number}.png")
    return tmp_path / "fewshot_data"


def lists(folder: Path, **names: str) -> Fss1000Config:
    folder.mkdir(exist_ok=True)
    for name, text in names.items():
        (folder / f"{name}.txt").write_text(text)
    return Fss1000Config(lists=str(folder))


def error_of(function, *arguments, **keywords) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_masks_are_bright_grey(root: Path) -> None:
    fss = Fss1000(root=root)
    mask = fss.mask("bee_house/2", 1)
    assert mask.tolist() == [[int(row in (1, 2))] * 8 for row in range(6)]
    assert fss.mask("bee_house/2", 0).sum() == 0
    assert fss.class_pixels("bee_house/2") == {1: 16}
    assert fss.image("bee_house/2").shape == (3, 6, 8)


def test_without_lists_every_class_is_in_every_split(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fss = Fss1000(root=root)
    assert "lists=FOLDER" in caplog.text
    assert fss.classes == CLASSES
    assert fss.fold_classes(0) == (0, 1, 2, 3)
    for split in ("train", "val", "test"):
        assert fss.image_ids(split)[:4] == ["abacus/1", "abacus/2", "abacus/10", "bee_house/1"]
        assert len(fss.image_ids(split)) == 12


def test_lists_partition_the_classes(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = lists(tmp_path / "l", trn="dingo\r\nabacus\n", val="cello\n", test="bee_house\n")
    with caplog.at_level(logging.WARNING):
        fss = Fss1000(root=root, config=config)
    assert "trn.txt: lists 2 classes; the official list has 520" in caplog.text
    assert fss.classes == CLASSES  # class ids do not depend on lists
    assert fss.fold_classes(0) == (1,)
    assert [name.split("/")[0] for name in fss.image_ids("train")[::3]] == ["abacus", "dingo"]
    assert fss.image_ids("test") == ["bee_house/1", "bee_house/2", "bee_house/10"]
    assert fss.fingerprint("test") != fss.fingerprint("train")
    assert fss.class_pixels("cello/1") == {2: 16}


def test_lists_that_do_not_fit(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "l"
    config = Fss1000Config(lists=str(folder))
    wanted = f"{folder}: holds none of train.txt, val.txt and test.txt; "
    assert error_of(Fss1000, root=root, config=config).startswith(wanted)
    lists(folder, train="abacus\n")
    fss = Fss1000(root=root, config=config)
    assert len(fss.image_ids("train")) == 3
    for function, argument in ((fss.image_ids, "test"), (fss.fold_classes, 0)):
        assert error_of(function, argument) == f"{folder}: no test.txt, the test classes of fss1000"
    lists(folder, test="abacus\n")
    message = error_of(Fss1000, root=root, config=config)
    assert message == f"{folder}/test.txt: lists abacus, as train.txt does"
    lists(folder, test="zebra\n")
    message = error_of(Fss1000, root=root, config=config)
    assert message == f"{folder}/test.txt: lists zebra, but there is no {root}/zebra"


def test_an_image_without_mask(root: Path) -> None:
    (root / "cello" / "2.png").unlink()
    message = error_of(Fss1000(root=root).image_ids, "test")
    assert message == f"{root}/cello/2.png: no such mask for {root}/cello/2.jpg; add it"


@pytest.mark.realdata
def test_real_images(shared_data: Path) -> None:
    fss = Fss1000(root=shared_data / "fss_mini")
    ids = fss.image_ids("test")
    shares: dict[str, list[float]] = {name: [] for name in fss.classes}
    for image_id in ids:
        (class_id, pixels), *others = fss.class_pixels(image_id).items()
        assert not others
        shares[fss.classes[class_id]].append(100 * pixels / 224**2)
    # Counts and smallest and largest share, from the table that describes the real images.
    assert {n: (len(s), round(min(s), 1), round(max(s), 1)) for n, s in shares.items()} == {
        "african_elephant": (5, 12.2, 39.0),
        "apple": (10, 11.6, 34.1),
        "basketball": (10, 0.6, 15.5),
        "eiffel_tower": (5, 1.8, 5.9),
    }
