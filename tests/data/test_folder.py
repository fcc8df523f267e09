from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fssbench.data.folder import Folder, FolderConfig
from fssbench.errors import FssbenchError

MASK = np.zeros((6, 8), np.uint8)
MASK[1:3] = 255
PHOTO = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray = MASK) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def error_of(function, *arguments, **keywords) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_masks_beside_images(tmp_path: Path) -> None:
    for name in ("10", "2", "1"):
        save(tmp_path / "cat" / f"{name}.jpg")
        save(tmp_path / "cat" / f"{name}.png")
    save(tmp_path / "dog" / "rex.JPEG")
    save(tmp_path / "dog" / "rex_mask.png")
    save(tmp_path / "dog" / "ida.png")
    save(tmp_path / "dog" / "ida_mask.PNG")
    (tmp_path / "dog" / "notes.txt").write_text("good boy")
    (tmp_path / "dog" / ".ida.jpg").write_bytes(b"what some systems leave behind")
    (tmp_path / ".trash").mkdir()
    (tmp_path / "readme.md").touch()
    folder = Folder(root=tmp_path)
    assert folder.classes == ("cat", "dog")
    assert folder.image_ids("test") == ["cat/1", "cat/2", "cat/10", "dog/ida", "dog/rex"]
    assert folder.class_pixels("cat/10") == {0: 16}
    assert folder.class_pixels("dog/ida") == {1: 16}
    assert folder.image("dog/rex").shape == (3, 6, 8)


def test_masks_in_a_folder_of_their_own(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "images" / "a.png")
    save(tmp_path / "cat" / "masks" / "a.png")
    save(tmp_path / "cat" / "images" / "b.webp")
    save(tmp_path / "cat" / "masks" / "b.png")
    save(tmp_path / "dog" / "a.bmp")  # another shape
    save(tmp_path / "dog" / "a.png")
    folder = Folder(root=tmp_path)
    assert folder.image_ids("test") == ["cat/a", "cat/b", "dog/a"]
    assert folder.class_pixels("cat/b") == {0: 16}


def test_every_split_and_the_one_fold_hold_everything(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.jpg")
        save(tmp_path / name / "a.png")
    folder = Folder(root=tmp_path)
    for split in ("train", "val", "test"):
        assert folder.image_ids(split) == ["cat/a", "dog/a"]
    assert folder.fold_classes(0) == (0, 1)
    assert error_of(folder.fold_classes, 1) == "folder has no fold 1; it has only fold 0"
    assert "no split 'all'" in error_of(folder.image_ids, "all")


@pytest.mark.parametrize(("foreground", "half"), [(1, 0), (255, 127), (200, 0), (128, 0)], ids=str)
def test_zeros_and_ones_or_dark_and_bright(tmp_path: Path, foreground: int, half: int) -> None:
    mask = np.where(MASK > 0, foreground, 0).astype(np.uint8)
    mask[0] = half
    save(tmp_path / "cat" / "a.jpg")
    save(tmp_path / "cat" / "a.png", mask)
    folder = Folder(root=tmp_path)
    assert np.array_equal(folder.mask("cat/a", 0).numpy(), MASK // 255)
    assert folder.mask("cat/a", 1).sum() == 0
    assert folder.mask("cat/a", 1).shape == (6, 8)


def test_an_empty_mask_counts_nothing(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.jpg")
    save(tmp_path / "cat" / "a.png", MASK * 0)
    assert Folder(root=tmp_path).class_pixels("cat/a") == {}


def test_a_mask_that_is_dark_everywhere_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.jpg", PHOTO)
    save(tmp_path / "cat" / "a.png", MASK // 3)
    message = error_of(Folder(root=tmp_path).mask, "cat/a", 0)
    assert message.startswith(f"{tmp_path}/cat/a.png: its brightest pixel is 85 of 255")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.jpg", np.zeros((80, 120), np.uint8))
    save(tmp_path / "cat" / "a.png", np.zeros((80, 100), np.uint8))
    message = error_of(Folder(root=tmp_path).mask, "cat/a", 0)
    assert "a.png: the mask is 100x80, its image a.jpg is 120x80" in message


def test_options_state_the_foreground_and_make_another_fingerprint(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.jpg", PHOTO)
    save(tmp_path / "cat" / "a.png", MASK // 255 * 3)
    folder = Folder(root=tmp_path)
    assert "-d foreground=labels|" in error_of(folder.prepare, "test")
    labels = Folder(root=tmp_path, config=FolderConfig(foreground="labels"))
    assert labels.class_pixels("cat/a") == {0: 16}
    assert labels.fingerprint("test") != folder.fingerprint("test")


def test_photographs_with_masks_of_the_other_suffix(tmp_path: Path) -> None:
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24] = 255
    photo = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    save(tmp_path / "cat" / "a.png", photo)
    save(tmp_path / "cat" / "a.jpg", mask)
    message = error_of(Folder(root=tmp_path).prepare, "test")
    assert message == (
        f"{tmp_path}/cat/a.png: is no mask, but a.jpg is one; choose the masks with -d "
        "mask_suffix=.jpg"
    )
    folder = Folder(root=tmp_path, config=FolderConfig(mask_suffix=".jpg"))
    assert folder.class_pixels("cat/a") == {0: 16 * 48}
    assert np.array_equal(folder.image("cat/a").permute(1, 2, 0).numpy(), photo)


def test_a_mask_has_the_size_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "cat" / "a.jpg", exif=exif)
    save(tmp_path / "cat" / "a.png", MASK.T.copy())
    folder = Folder(root=tmp_path)
    assert folder.mask("cat/a", 0).shape == folder.image("cat/a").shape[-2:] == (8, 6)
    save(tmp_path / "cat" / "a.png", MASK)
    message = error_of(folder.mask, "cat/a", 0)
    assert "a.jpg is 6x8 when turned as its EXIF orientation says (the mask fits it unt" in message


def test_pairs_beside_the_folder_images_are_found(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "masks/a.png", "b.jpg", "b_mask.bmp", "images/c.png"):
        save(tmp_path / "cat" / name)
    save(tmp_path / "cat" / "masks" / "c.webp")
    assert Folder(root=tmp_path).image_ids("test") == ["cat/a", "cat/b", "cat/c"]
    save(tmp_path / "cat" / "a.jpg")
    save(tmp_path / "cat" / "a.png")
    message = error_of(Folder(root=tmp_path).image_ids, "test")
    assert (
        message
        == f"{tmp_path}/cat/a.jpg: {tmp_path}/cat/images/a.jpg has the same name; rename one"
    )


def test_pictures_that_are_not_read_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "root"
    for name in ("images/a.jpg", "masks/a.png", "masks/b.png", "masks/more/c.png"):
        save(root / "cat" / name)
    (root / "cat" / "images" / "d.tif").touch()
    for number in range(2):
        save(tmp_path / "elsewhere" / f"{number}.jpg")
    (root / "cat" / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "images" / "loop").symlink_to(root / "cat")
    (root / "cat" / "masks" / "gone").symlink_to(tmp_path / "nowhere")
    (root / "dog").symlink_to(tmp_path / "nowhere")
    folder = Folder(root=root)
    assert folder.image_ids("test") == ["cat/a"]
    unread = "is not read, because it is in no pair of image and mask"
    assert sorted(folder.problems("test")) == sorted([
        f"{root}/cat/masks/gone: is a link to a missing file",
        f"{root}/cat/images/d.tif: {unread}",
        f"{root}/cat/images/linked/0.jpg: {unread}",
        f"{root}/cat/images/linked/1.jpg: {unread}",
        f"{root}/cat/masks/b.png: {unread}",
        f"{root}/cat/masks/more/c.png: {unread}",
        f"{root}/dog: is a link to a missing folder",
    ])  # fmt: skip
    with caplog.at_level("WARNING"):
        folder.prepare("test")
    assert f"5 times: {root}/cat/" in caplog.text


def test_wrong_roots(tmp_path: Path) -> None:
    assert error_of(Folder, root=None).startswith("folder needs --data-root, the folder that")
    assert f"no folder {tmp_path}/no; " in error_of(Folder, root=tmp_path / "no")
    assert f"no class folders in {tmp_path}; " in error_of(Folder, root=tmp_path)
    (tmp_path / "outer" / "cat").mkdir(parents=True)
    message = error_of(Folder(root=tmp_path).image_ids, "test")
    assert message.startswith(f"{tmp_path}/outer: holds no images (.jpg ")


@pytest.mark.parametrize(
    ("files", "named", "words"),
    [
        (["a.jpg"], "a.png", "no such mask for"),
        (["a.png"], "a_mask.png", "no such mask for"),
        (["images/a.jpg", "masks/b.png"], "masks/a.png", "no such mask for"),
        (["images/a.jpg"], "masks/a.png", "no such mask for"),
        (["a.jpg", "a.bmp", "a.png"], "a.jpg", "a.bmp has the same name"),
        (["a.jpg", "a.png", "a_mask.png"], "a.jpg", "two masks, a.png and a_mask.png"),
        (["images/notes.txt"], "images", "holds no images"),
    ],
)
def test_pairs_that_do_not_match(tmp_path: Path, files: list[str], named: str, words: str) -> None:
    for name in files:
        path = tmp_path / "cat" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    message = error_of(Folder(root=tmp_path).image_ids, "test")
    assert message.startswith(f"{tmp_path}/cat/{named}: {words}")


@pytest.mark.parametrize("image_id", ["cat/b", "dog/a", "cat", "", "../cat/a"])
def test_unknown_images(tmp_path: Path, image_id: str) -> None:
    save(tmp_path / "cat" / "a.jpg")
    save(tmp_path / "cat" / "a.png")
    folder = Folder(root=tmp_path)
    for function in (folder.image, folder.class_pixels, lambda name: folder.mask(name, 0)):
        assert f"folder has no image {image_id!r} in " in error_of(function, image_id)


def test_pickled_copies_work(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "a.jpg")
    save(tmp_path / "cat" / "a.png")
    folder = Folder(root=tmp_path)
    folder.prepare("test")
    copy = pickle.loads(pickle.dumps(folder))
    assert copy.class_pixels("cat/a") == {0: 16}
    assert copy.mask("cat/a", 0).sum() == 16


def test_classes_that_are_left_out_are_not_novel(tmp_path: Path) -> None:
    for name in ("cat", "dog", "ox"):
        save(tmp_path / name / "a.jpg")
        save(tmp_path / name / "a.png")
    folder = Folder(root=tmp_path, config=FolderConfig(leave_out=("dog",)))
    assert folder.classes == ("cat", "dog", "ox")
    assert folder.fold_classes(0) == (0, 2)
    assert folder.fingerprint("test") != Folder(root=tmp_path).fingerprint("test")
    message = error_of(Folder, root=tmp_path, config=FolderConfig(leave_out=("dogs",)))
    assert message.startswith("folder: -d leave_out=dogs: there is no such class; did you mean 'do")
    everything = Folder(root=tmp_path, config=FolderConfig(leave_out=("cat", "dog", "ox")))
    assert "-d leave_out names every class" in error_of(everything.fold_classes, 0)


@pytest.mark.realdata
def test_real_images(shared_data: Path) -> None:
    folder = Folder(root=shared_data / "davis_mini")
    ids = folder.image_ids("test")
    assert len(folder.classes) == 20
    assert len(ids) == 160
    assert ids[:2] == ["blackswan/1", "blackswan/2"]
    for image_id in ids[::8]:
        assert folder.image(image_id).shape == (3, 480, 854)
        assert sum(folder.class_pixels(image_id).values()) >= 800
