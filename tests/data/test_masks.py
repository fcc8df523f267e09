"""The meaning of mask files: inputs made here by hand, with the pixels that they must mark."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fssbench.data.masks import read_foreground, read_labels, voc_colours
from fssbench.errors import FssbenchError

VOC = voc_colours()
OBJECT = np.zeros((80, 100), np.uint8)
OBJECT[20:60, 30:70] = 1
RING = OBJECT.copy()
RING[18:62, 28:72] = 255
RING[20:60, 30:70] = 1
SEVERAL = OBJECT.copy()
SEVERAL[65:75, 10:30] = 2
SEVERAL[5:15, 80:95] = 7
PHOTO = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)


def palette_file(indices: np.ndarray, colours: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices)
    picture.putpalette(colours.astype(np.uint8).tobytes())
    return picture


def moved(labels: np.ndarray, colours: np.ndarray = VOC) -> Image.Image:
    """Return the same colours with a palette in another order."""
    order = np.random.default_rng(1).permutation(256)
    if order[0] == 0:
        order = np.roll(order, 1)
    return palette_file(np.argsort(order)[labels].astype(np.uint8), colours[order])


def two_colours(first: tuple[int, ...], second: tuple[int, ...], mask: np.ndarray = OBJECT):
    colours = np.zeros((256, 3), np.uint8)
    colours[:2] = first, second
    return palette_file(mask, colours)


def drawn(colour: tuple[int, ...], ground: tuple[int, ...] = (0, 0, 0)) -> Image.Image:
    return Image.fromarray(np.where(OBJECT[..., None] > 0, colour, ground).astype(np.uint8))


def cut_out(colours: np.ndarray, alpha: np.ndarray = OBJECT * 255) -> Image.Image:
    return Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8))


def grey_png(samples: np.ndarray, depth: int) -> bytes:
    """Return a grey PNG of 1, 2 or 4 bits a pixel, written without Pillow."""
    height, width = samples.shape
    bits = (samples[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.reshape(height, -1), axis=1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def soft(radius: float, low: int = 0, high: int = 255) -> Image.Image:
    picture = Image.fromarray((OBJECT * 255).astype(np.uint8))
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), float)
    return Image.fromarray((low + blurred * (high - low) / 255).round().astype(np.uint8))


def noisy(quality: int, mode: str = "L") -> Image.Image:
    """Return a mask that was a JPEG file once."""
    from io import BytesIO

    content = BytesIO()
    ellipse = ((np.indices(OBJECT.shape).T - (40, 50)) ** 2 @ (1 / 400, 1 / 900) < 1).T
    Image.fromarray((ellipse * 255).astype(np.uint8)).convert(mode).save(
        content, "JPEG", quality=quality
    )
    return Image.open(content)


KNOWN = {
    "grey 0/1": (Image.fromarray(OBJECT), OBJECT),
    "grey 0/255": (Image.fromarray(OBJECT * 255), OBJECT),
    "grey 0/200": (Image.fromarray(OBJECT * 200), OBJECT),
    "grey 0/1/255": (Image.fromarray(RING), RING),
    "bits": (Image.fromarray(OBJECT > 0), OBJECT),
    "empty": (Image.fromarray(OBJECT * 0), OBJECT * 0),
    "palette of VOC": (palette_file(RING, VOC), RING),
    "palette of VOC, moved": (moved(RING), RING),
    "palette of VOC, quantized": (palette_file(RING, VOC).convert("RGB").quantize(256), RING),
    "palette, red": (two_colours((0, 0, 0), (255, 0, 0)), OBJECT),
    "palette, dark green": (two_colours((0, 0, 0), (0, 128, 0)), OBJECT),
    "palette, red moved": (two_colours((255, 0, 0), (0, 0, 0), 1 - OBJECT), OBJECT),
    "palette, black and white": (two_colours((0, 0, 0), (255, 255, 255)), OBJECT),
    "palette, white and black": (two_colours((255,) * 3, (0,) * 3, 1 - OBJECT), OBJECT),
    "palette, grey ramp 0/255": (Image.fromarray(OBJECT * 255).convert("P"), OBJECT),
    "palette, grey ramp 0/1/255": (Image.fromarray(RING).convert("P"), RING),
    "RGB, grey": (Image.fromarray(OBJECT * 255).convert("RGB"), OBJECT),
    "RGB, 0/1": (Image.fromarray(OBJECT).convert("RGB"), OBJECT),
    "RGB, red": (drawn((255, 0, 0)), OBJECT),
    "RGB, green": (drawn((0, 255, 0)), OBJECT),
    "RGB, blue": (drawn((0, 0, 255)), OBJECT),
    "RGB, VOC": (palette_file(RING, VOC).convert("RGB"), RING),
    "RGBA, opaque": (Image.fromarray(OBJECT * 255).convert("RGBA"), OBJECT),
    "alpha, white": (cut_out(np.full((80, 100, 3), 255)), OBJECT),
    "alpha, black": (cut_out(np.zeros((80, 100, 3))), OBJECT),
    "alpha, white on black": (cut_out(np.dstack([OBJECT * 255] * 3)), OBJECT),
    "alpha, photograph": (cut_out(PHOTO * OBJECT[..., None]), OBJECT),
    "alpha, LA": (Image.merge("LA", [Image.new("L", (100, 80), 255),
                                     Image.fromarray(OBJECT * 255)]), OBJECT),
    "alpha, soft": (cut_out(np.full((80, 100, 3), 255), np.asarray(soft(1))),
                    (np.asarray(soft(1)) >= 128).astype(np.uint8)),
    "alpha, empty": (cut_out(np.zeros((80, 100, 3)), OBJECT * 0), OBJECT * 0),
    "soft edges": (soft(1.5), (np.asarray(soft(1.5)) >= 128).astype(np.uint8)),
    "resized": (Image.fromarray(OBJECT * 255).resize((50, 40), Image.Resampling.BOX),
                OBJECT[::2, ::2]),
}  # fmt: skip

UNCLEAR = {
    "numbers in one channel": (
        Image.fromarray(np.stack([RING, RING * 0, RING * 0], -1)), "(1, 0, 0)"),
    "dark numbers, white void": (
        Image.fromarray(np.where(RING == 255, 255, np.stack([RING, RING * 0, RING * 0])
                                 ).astype(np.uint8).transpose(1, 2, 0)), "(1, 0, 0)"),
    "several labels, palette": (palette_file(SEVERAL, VOC), "labels are 0, 1, 2, 7"),
    "several labels, grey": (Image.fromarray(SEVERAL), "brightest pixel is 7 of 255"),
    "one class of many, grey": (Image.fromarray(np.where(RING == 1, 15, RING)), "0, 15, 255"),
    "one class of many, palette": (palette_file(np.where(RING == 1, 15, RING), VOC), "0, 15, 255"),
    "one class of many, moved": (moved(np.where(RING == 1, 15, RING)), "0, 15, 255"),
    "one class of many, RGB": (
        palette_file(np.where(RING == 1, 15, RING), VOC).convert("RGB"), "0, 15, 255"),
    "trimap": (Image.fromarray(OBJECT * 128 + np.pad(
        np.full((30, 30), 127, np.uint8), ((25, 25), (35, 35)))), "0, 128, 255"),
    "instances in grey": (Image.fromarray(np.where(SEVERAL == 2, 140, OBJECT * 250)), "140, 250"),
    "dark": (Image.fromarray(OBJECT * 90), "brightest pixel is 90 of 255"),
    "several colours": (Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 3), np.uint8)
                                        [SEVERAL]), "its colours are ("),
    "white ground": (drawn((255, 0, 0), (255, 255, 255)), "its colours are (255, 0, 0), (255, 255"),
    "palette, white ground": (two_colours((255,) * 3, (255, 0, 0)), "palette index 0 has the colo"),
    "palette, all white": (two_colours((255,) * 3, (0,) * 3, OBJECT * 0), "palette index 0"),
    "palette, void alone": (palette_file(OBJECT * 255, VOC), "its labels are 0, 255"),
    "photograph": (Image.fromarray(PHOTO), "it is a photograph"),
    "grey photograph": (Image.fromarray(PHOTO[..., 0]), "it is a photograph"),
    "alpha against colours": (
        cut_out(np.dstack([OBJECT * 255] * 3), (1 - OBJECT) * 255), "opacity and its colours"),
    "transparent": (cut_out(PHOTO, OBJECT * 0), "every pixel is transparent"),
}  # fmt: skip


def error_of(function, *arguments) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", KNOWN)
def test_known_masks(tmp_path: Path, name: str) -> None:
    picture, wanted = KNOWN[name]
    picture.save(tmp_path / "a.png", optimize=name.endswith("quantized"))
    found = read_foreground(tmp_path / "a.png").numpy()
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("name", UNCLEAR)
def test_unclear_masks_name_the_file_the_values_and_the_option(tmp_path: Path, name: str) -> None:
    picture, words = UNCLEAR[name]
    picture.save(tmp_path / "a.png")
    message = error_of(read_foreground, tmp_path / "a.png")
    assert message.startswith(f"{tmp_path}/a.png: ")
    assert words in message
    assert "-d foreground=labels|nonblack|bright|alpha" in message


@pytest.mark.parametrize("transparent", [0, 1])
def test_transparency_of_a_palette(tmp_path: Path, transparent: int) -> None:
    white = two_colours((255,) * 3, (255,) * 3)
    white.save(tmp_path / "a.png", transparency=transparent)
    if transparent == 0:
        assert np.array_equal(read_foreground(tmp_path / "a.png").numpy(), OBJECT)
    else:
        assert "opacity and its colours" in error_of(read_foreground, tmp_path / "a.png")
    palette_file(RING, VOC).save(tmp_path / "b.png", transparency=0)
    assert np.array_equal(read_foreground(tmp_path / "b.png").numpy(), RING)


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_compression_noise(tmp_path: Path, quality: int, mode: str) -> None:
    picture = noisy(quality, mode)
    wanted = np.asarray(picture.convert("L")) >= 128
    for name in ("a.png", "a.jpg"):
        picture.save(tmp_path / name, **({"quality": quality} if name == "a.jpg" else {}))
        found = read_foreground(tmp_path / name).numpy()
        assert (found != wanted).mean() < 0.002, name
    assert 1200 < wanted.sum() < 2500


def test_labels_in_a_jpeg_file_are_unclear(tmp_path: Path) -> None:
    for labels in (OBJECT, np.where(RING == 1, 15, RING), SEVERAL * 20):
        Image.fromarray(labels).save(tmp_path / "a.jpg", quality=95)
        assert "a.jpg: " in error_of(read_foreground, tmp_path / "a.jpg")
        assert "JPEG" in error_of(read_labels, tmp_path / "a.jpg")


@pytest.mark.parametrize("quality", [75, 85, 95, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_ignored_pixels_in_a_jpeg_file_are_unclear(tmp_path: Path, quality: int, mode: str) -> None:
    Image.fromarray(RING).convert(mode).save(tmp_path / "a.jpg", quality=quality)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "a.png")
    for name in ("a.jpg", "a.png"):
        message = error_of(read_foreground, tmp_path / name)
        assert "0, 1 and 255 with noise" in message
        assert np.array_equal(
            read_foreground(tmp_path / name, "bright").numpy(),
            np.asarray(Image.open(tmp_path / name).convert("L")) >= 128,
        )


@pytest.mark.parametrize("quality", [30, 40, 70, 75, 95])
def test_a_dark_background_in_a_jpeg_file_is_no_object(tmp_path: Path, quality: int) -> None:
    """JPEG changes 0 to 1 at some qualities; edges between its blocks have no noise."""
    aligned = np.zeros((80, 104), np.uint8)
    aligned[16:64, 32:80] = 255
    Image.fromarray(aligned).save(tmp_path / "a.jpg", quality=quality)
    assert np.array_equal(read_foreground(tmp_path / "a.jpg").numpy(), aligned > 0)
    again = Image.fromarray(OBJECT * 255)
    for each in (quality, 70, 90):
        again.save(tmp_path / "b.jpg", quality=each)
        again = Image.open(tmp_path / "b.jpg")
        again.load()
    assert (read_foreground(tmp_path / "b.jpg").numpy() != OBJECT).mean() < 0.002


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_holds_the_stored_samples(tmp_path: Path, depth: int) -> None:
    labels = np.random.default_rng(depth).integers(0, 2**depth, (7, 13))
    (tmp_path / "a.png").write_bytes(grey_png(labels, depth))
    assert np.array_equal(read_labels(tmp_path / "a.png").numpy(), labels)
    (tmp_path / "b.png").write_bytes(grey_png(OBJECT, depth))
    assert np.array_equal(read_foreground(tmp_path / "b.png").numpy(), OBJECT)


@pytest.mark.parametrize(
    ("how", "picture", "wanted"),
    [
        ("labels", palette_file(np.where(SEVERAL == 7, 255, SEVERAL), VOC),
         np.where(SEVERAL == 7, 255, SEVERAL > 0)),
        ("labels", Image.fromarray(SEVERAL), SEVERAL > 0),
        ("labels", moved(np.where(RING == 1, 15, RING)), RING),
        ("nonblack", palette_file(SEVERAL, VOC), SEVERAL > 0),
        ("nonblack", drawn((3, 0, 0)), OBJECT),
        ("bright", Image.fromarray(RING), RING == 255),
        ("bright", Image.fromarray(PHOTO[..., 0]), PHOTO[..., 0] >= 128),
        ("alpha", cut_out(np.dstack([OBJECT * 255] * 3), (1 - OBJECT) * 255), OBJECT == 0),
    ],
)  # fmt: skip
def test_the_option_states_the_meaning(tmp_path: Path, how, picture, wanted) -> None:
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_foreground(tmp_path / "a.png", how).numpy(), wanted)


@pytest.mark.parametrize(("how", "others"), [("bright", "nonblack"), ("nonblack", "bright")])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_no_option_makes_a_mask_of_a_photograph(tmp_path: Path, how, others, suffix) -> None:
    smooth = Image.fromarray(PHOTO[:10, :12]).resize((100, 80), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / f"a.{suffix}")
    message = error_of(read_foreground, tmp_path / f"a.{suffix}", how)
    assert f"a.{suffix}: it has " in message
    assert f"-d foreground=labels|{others}|alpha" in message


@pytest.mark.parametrize("how", ["bright", "nonblack"])
def test_options_take_drawings_with_soft_edges(tmp_path: Path, how) -> None:
    soft = drawn((90, 255, 160)).resize((400, 320)).filter(ImageFilter.GaussianBlur(2))
    soft.save(tmp_path / "a.png")
    assert soft.getcolors(64) is None
    found = read_foreground(tmp_path / "a.png", how).numpy()
    wanted = np.kron(OBJECT, np.ones((4, 4)))
    assert (found != wanted).mean() < (0.01 if how == "bright" else 0.1)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    Image.fromarray(OBJECT).save(tmp_path / "a.png")
    assert "a.png: it has no transparency" in error_of(read_foreground, tmp_path / "a.png", "alpha")
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    assert "its mode is RGB" in error_of(read_foreground, tmp_path / "a.png", "labels")


CLASSES = np.random.default_rng(2).choice([*range(21), 255], (30, 40)).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(CLASSES), palette_file(CLASSES, VOC), moved(CLASSES),
        palette_file(CLASSES, VOC).convert("RGB"), palette_file(CLASSES, VOC).convert("RGBA"),
        palette_file(CLASSES, VOC).convert("RGB").quantize(256),
        palette_file(CLASSES, np.arange(256)[:, None].repeat(3, 1)),
        palette_file(CLASSES, np.vstack([VOC[:255], [[255, 255, 255]]])),
    ],
)  # fmt: skip
def test_label_maps(tmp_path: Path, picture: Image.Image) -> None:
    picture.save(tmp_path / "a.png", optimize=True)
    assert np.array_equal(read_labels(tmp_path / "a.png").numpy(), CLASSES)


def test_label_maps_in_other_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    mixed = VOC.copy()
    mixed[[3, 4]] = mixed[[4, 3]]
    mixed[20] = 255, 0, 255
    palette_file(CLASSES, mixed).save(path)
    message = error_of(read_labels, path)
    assert (
        f"a.png: palette index 3 has the colour {tuple(VOC[4].tolist())}, VOC's of class 4"
        in message
    )
    assert "-d palette=index|colour" in message
    assert np.array_equal(read_labels(path, "index").numpy(), CLASSES)
    assert "not all colours are VOC's" in error_of(read_labels, path, "colour")
    Image.fromarray(mixed[CLASSES]).save(path)
    message = error_of(read_labels, path)
    assert "its mode is RGB and its colours are not those of VOC" in message
    assert "-d palette" not in message  # the option is about palette files


def test_vocs_colours_are_the_published_ones() -> None:
    # From VOC's development kit: background, aeroplane, bicycle, person, tvmonitor, void.
    published = {
        0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128),
        255: (224, 224, 192),
    }  # fmt: skip
    assert {index: tuple(VOC[index].tolist()) for index in published} == published
    assert len({tuple(colour) for colour in VOC.tolist()}) == 256


def test_a_mask_of_sixteen_bits_is_not_cut(tmp_path: Path) -> None:
    Image.fromarray(OBJECT.astype(np.uint16) * 65535).save(tmp_path / "a.png")
    assert "more than 8 bits" in error_of(read_foreground, tmp_path / "a.png")


@pytest.mark.realdata
def test_fss1000_masks_are_read_as_by_its_authors(shared_data: Path) -> None:
    paths = sorted((shared_data / "fss_mini").rglob("*.png"))
    assert len(paths) == 30
    for path in paths:
        with Image.open(path) as picture:
            wanted = np.asarray(picture.convert("L")) >= 128
        assert np.array_equal(read_foreground(path).numpy(), wanted), path
