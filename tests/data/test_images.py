from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from fssbench.data import images
from fssbench.data.images import check_same_size, image_size, read_image
from fssbench.data.masks import read_foreground, read_labels
from fssbench.errors import FssbenchError


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def error_of(function, *arguments) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_an_image_is_channels_first_rgb(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pixels)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.full((4, 6), 255, np.uint8))
    name = "a.jpg" if mode == "CMYK" else "a.png"
    grey.convert("RGB").convert(mode).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (3, 4, 6)
    assert image.min() >= 254


def test_every_exif_orientation_is_applied_to_pixels_and_size(tmp_path: Path) -> None:
    pixels = noise(4, 8)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for suffix in ("png", "tiff", "webp"):
            path = tmp_path / f"{orientation}.{suffix}"
            Image.fromarray(pixels).save(path, exif=exif, lossless=True)
            with Image.open(path) as picture:
                wanted = np.asarray(ImageOps.exif_transpose(picture))
            found = read_image(path)
            assert np.array_equal(found.permute(1, 2, 0).numpy(), wanted), path
            assert image_size(path) == found.shape[-2:]
        stored = read_image(tmp_path / f"{orientation}.png", upright=False)
        assert np.array_equal(stored.permute(1, 2, 0).numpy(), pixels)


def test_damaged_exif_does_not_damage_the_picture(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff")
    assert read_image(tmp_path / "a.jpg").shape == (3, 4, 8)


def test_labels_are_palette_numbers_not_colours(tmp_path: Path) -> None:
    numbers = noise(4, 8, 1)
    picture = Image.fromarray(numbers)
    picture.save(tmp_path / "grey.png")
    picture.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    picture.save(tmp_path / "palette.png")
    for name in ("grey.png", "palette.png"):
        assert np.array_equal(read_labels(tmp_path / name).numpy(), numbers)


def test_labels_in_colour_are_an_error(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 8)).save(tmp_path / "a.png")
    message = error_of(read_labels, tmp_path / "a.png")
    assert f"{tmp_path}/a.png: " in message
    assert "RGB" in message


def test_sixteen_bits_are_an_error_and_not_cut(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
    for read in (read_image, read_foreground, read_labels):
        assert "8" in error_of(read, tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
@pytest.mark.parametrize("tolerant", [False, True])
def test_a_truncated_file_is_an_error(
    tmp_path: Path, suffix: str, kept: float, tolerant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)  # as some libraries do
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    message = error_of(read_image, path)
    assert message.startswith(f"{path}: cannot be decoded: ")
    assert "copy" in message


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("a sign-in page instead of a photograph")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    for name in ("text.jpg", "empty.jpg", "folder.jpg"):
        for read in (read_image, read_labels, image_size):
            assert error_of(read, tmp_path / name).startswith(f"{tmp_path / name}: cannot be dec")


def test_a_missing_file_is_named_as_the_user_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert error_of(read_image, Path("data/x.jpg")).startswith("data/x.jpg: no such file; ")
    with pytest.raises(FssbenchError, match=r"x\.jpg: it is gone"):
        read_image(Path("x.jpg"), missing="it is gone")


def test_a_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(noise(64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 4096)
    read_image(tmp_path / "a.png")
    monkeypatch.setattr(images, "MOST_PIXELS", 4095)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as research code does
    for read in (read_image, read_foreground, read_labels, image_size):
        assert "more than 4095 pixels" in error_of(read, tmp_path / "a.png")


def test_postscript_is_no_picture_for_another_program_to_draw(tmp_path: Path) -> None:
    Image.fromarray(noise(8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    assert "it is no picture" in error_of(read_image, tmp_path / "a.jpg")


def test_sizes_must_agree(tmp_path: Path) -> None:
    Image.fromarray(noise(80, 120)).save(tmp_path / "a.jpg")
    check_same_size(torch.zeros(80, 120), tmp_path / "a.png", tmp_path / "a.jpg")
    mask = torch.zeros(80, 100)
    with pytest.raises(FssbenchError, match=r"a\.png: .*100x80, its image a\.jpg is 120x80"):
        check_same_size(mask, tmp_path / "a.png", tmp_path / "a.jpg")
