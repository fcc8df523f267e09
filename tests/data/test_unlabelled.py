"""A folder of pictures without annotation."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import fssbench
from fssbench import FssbenchError


def fill(folder, count, first=0):
    for number in range(first, first + count):
        path = folder / f"d{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (number % 256, 0, 0)).save(path)


def test_every_picture_is_trained_on_or_held_out(tmp_path):
    fill(tmp_path, 100)
    (tmp_path / ".hidden").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / ".hidden" / "x.png")
    (tmp_path / "notes.txt").write_text("")
    dataset = fssbench.dataset("images", tmp_path)
    train, held_out = dataset.image_ids("train"), dataset.image_ids("val")
    assert len(train) + len(held_out) == 100
    assert set(train).isdisjoint(held_out)
    assert 1 <= len(held_out) <= 15
    assert dataset.image("d1/7" + ".png").shape == (3, 4, 6)
    assert dataset.image("d1/7.png")[0, 0, 0] == 7
    assert torch.equal(dataset.mask("d1/7.png", 0), torch.zeros(4, 6, dtype=torch.uint8))
    assert dataset.class_pixels("d1/7.png") == {}
    assert dataset.fold_classes(0) == ()


def test_more_pictures_move_none(tmp_path):
    fill(tmp_path, 100)
    before = fssbench.dataset("images", tmp_path)
    fill(tmp_path, 50, first=100)
    after = fssbench.dataset("images", tmp_path)
    assert set(before.image_ids("val")) <= set(after.image_ids("val"))
    assert set(before.image_ids("train")) <= set(after.image_ids("train"))
    assert before.fingerprint("train") != after.fingerprint("train")


@pytest.mark.parametrize("count", [2, 3])
def test_small_folders_have_both(tmp_path, count):
    fill(tmp_path, count)
    dataset = fssbench.dataset("images", tmp_path)
    assert dataset.image_ids("train")
    assert dataset.image_ids("val")


def test_what_is_missing_is_one_line(tmp_path):
    with pytest.raises(FssbenchError, match="--data-root"):
        fssbench.dataset("images")
    with pytest.raises(FssbenchError, match="no folder"):
        fssbench.dataset("images", tmp_path / "x")
    with pytest.raises(FssbenchError, match="contains 0 images"):
        fssbench.dataset("images", tmp_path)


def test_share_and_limit_of_the_held_out_images(tmp_path):
    """1 % of SA-1B, of which 200 images are held out: both depend on the ids."""
    for number in range(6000):
        (tmp_path / f"sa_{number}.jpg").touch()
    whole = fssbench.dataset("images", tmp_path)
    assert len(whole.image_ids("val")) == 200
    assert len(whole.image_ids("train")) == 5800
    some = fssbench.dataset("images", tmp_path, share="0.1")
    ids = {*some.image_ids("train"), *some.image_ids("val")}
    assert 500 < len(ids) < 700
    assert 15 < len(some.image_ids("val")) < 50
    (tmp_path / "another.jpg").touch()
    more = fssbench.dataset("images", tmp_path, share="0.1")
    assert {*more.image_ids("train"), *more.image_ids("val")} - {"another.jpg"} == ids
    with pytest.raises(FssbenchError, match="share"):
        fssbench.dataset("images", tmp_path, share="0")
    with pytest.raises(FssbenchError, match="contains 0 images of share 1e-09"):
        fssbench.dataset("images", tmp_path, share="1e-9")
