"""Tests of ``fssbench predict``."""

from __future__ import annotations

import json
from pathlib import Path

import methods_for_tests
import numpy as np
import pytest
import torch
from PIL import Image

from fssbench import FssbenchError, Predictor, backbone, matcher
from fssbench.inference import picture_files as pictures
from fssbench.inference.picture_files import parse_support
from fssbench.matchers.checkpoint import write_checkpoint

SMALL = ["--backbone", "pixels", "-p", methods_for_tests.__file__]
TURNED = 6
"""EXIF orientation of an image that is displayed rotated clockwise by 90 degrees."""


def draw(width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """Return an image of a red rectangle in the left half on noise, and its mask."""
    generator = np.random.default_rng(width)
    pixels = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[height // 4 : height * 3 // 4, width // 8 : width // 2] = 255
    pixels[mask == 255] = (250, 20, 20)
    return Image.fromarray(pixels), Image.fromarray(mask)


def save_turned(picture: Image.Image, path: Path) -> None:
    """Save an image rotated, with the EXIF orientation that corrects it."""
    exif = Image.Exif()
    exif[0x0112] = TURNED
    picture.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


def overlap(path: Path, truth: Image.Image) -> float:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        found = np.array(picture)
    assert set(np.unique(found)) <= {0, 255}
    wanted = np.array(truth) == 255
    assert found.shape == wanted.shape
    return float(((found == 255) & wanted).sum() / ((found == 255) | wanted).sum())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Two supports of different sizes, and a folder of three queries, one with an orientation."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("one", (90, 60)), ("two", (48, 100))):
        image, mask = draw(*size)
        image.save(f"{name}.jpg", quality=95)
        mask.save(f"{name}.png")
    Path("queries").mkdir()
    draw(80, 120)[0].save("queries/tall.jpg", quality=95)
    draw(200, 50)[0].save("queries/wide.png")
    save_turned(draw(110, 70)[0], Path("queries/turned.png"))
    Path("queries/notes.txt").write_text("no picture")
    return tmp_path


SUPPORT = ["--support", "one.jpg:one.png"]
QUERY = ["--query", "queries/wide.png", "--out", "out"]


def test_a_folder_with_supports_of_different_sizes(run):
    code, out, err = run(
        "predict", *SMALL, *SUPPORT, "--support", "two.jpg:two.png", "--query", "queries",
        "--out", "out",
    )  # fmt: skip
    assert code == 0, err
    assert "" not in err.splitlines()
    for name, size in (("tall", (80, 120)), ("wide", (200, 50)), ("turned", (110, 70))):
        assert overlap(Path(f"out/masks/{name}.png"), draw(*size)[1]) > 0.7, name
        assert f"{name}.png: {size[0]}x{size[1]}, " in out
        with Image.open(f"out/overlays/{name}.png") as overlay:
            assert overlay.size == size
            assert overlay.mode == "RGB"
            middle = overlay.getpixel((size[0] // 4, size[1] // 2))
            corner = overlay.getpixel((size[0] - 2, 2))
        assert middle[2] > 120  # red under blue
        assert max(corner) < 130
    assert len(list(Path("out").rglob("*.png"))) == 6


def test_supports_are_turned_as_their_exif_says(run):
    image, mask = draw(90, 60)
    save_turned(image, Path("turned.png"))
    save_turned(mask, Path("turned_mask.png"))
    mask.save("upright_mask.png")
    masks = []
    for number, pair in enumerate(("turned.png:turned_mask.png", "turned.png:upright_mask.png")):
        out = Path(f"out{number}")
        code, _, err = run(
            "predict", *SMALL, "--support", pair, "--query", "queries/wide.png", "--out", out
        )
        assert code == 0, err
        masks.append((out / "masks/wide.png").read_bytes())
    assert masks[0] == masks[1]
    assert overlap(Path("out0/masks/wide.png"), draw(200, 50)[1]) > 0.7


def test_json_and_one_encoding_of_the_support(run, monkeypatch):
    calls = []
    whole = Predictor.set_support

    def counted(*given, **named):
        calls.append(given)
        whole(*given, **named)

    monkeypatch.setattr(Predictor, "set_support", counted)
    code, out, err = run(
        "predict", "prototype", *SMALL, *SUPPORT, "--query", "queries", "--out", "out", "--json",
        "-o", "scale=5",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    assert len(calls) == 1
    assert (told["matcher"], told["backbone"]) == ("prototype", "pixels")
    assert told["supports"] == [{"image": "one.jpg", "mask": "one.png"}]
    assert [Path(p["query"]).name for p in told["predictions"]] == [
        "tall.jpg", "turned.png", "wide.png",
    ]  # fmt: skip
    for each in told["predictions"]:
        with Image.open(each["mask"]) as mask:
            assert mask.size == (each["width"], each["height"])
            assert int((np.array(mask) == 255).sum()) == each["foreground_pixels"]
        assert Path(each["overlay"]).is_file()


def test_a_checkpoint(run, fails):
    run("list", "plugins", *SMALL[2:])  # registers the names in this process
    learner = matcher("learner", backbone("pixels"), width=2)
    with torch.no_grad():
        learner.bias.fill_(3.0)  # everything is foreground
    header = {"matcher": "learner", "backbone": "pixels", "config": {"width": 2}}
    write_checkpoint(Path("c.safetensors"), learner, header)
    given = ["predict", *SMALL[2:], *SUPPORT, "--checkpoint", "c.safetensors"]
    code, out, err = run(*given, *QUERY, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["matcher"], told["backbone"]) == ("learner", "pixels")
    assert told["predictions"][0]["foreground_pixels"] == 200 * 50
    line = fails(*given, "prototype", *QUERY, "--force")
    assert "it was trained as matcher 'learner', not 'prototype'" in line
    line = fails(*given, "--backbone", "tiny-vit", *QUERY, "--force")
    assert "it was trained as backbone 'pixels', not 'tiny-vit'" in line


def test_nothing_is_overwritten_unasked(run, fails):
    first = ["predict", *SMALL, *SUPPORT, *QUERY]
    assert run(*first)[0] == 0
    mask = Path("out/masks/wide.png")
    mask.write_bytes(b"mine")
    line = fails(*first)
    assert "out/masks/wide.png: is there already (and 1 more)" in line
    assert "--force" in line
    assert mask.read_bytes() == b"mine"
    assert run(*first, "--force")[0] == 0
    assert overlap(mask, draw(200, 50)[1]) > 0.7


def test_given_pictures_are_never_overwritten(fails):
    Path("masks").mkdir()
    Path("one.png").rename("masks/one.png")
    before = Path("masks/one.png").read_bytes()
    line = fails(
        "predict", *SMALL, "--support", "one.jpg:masks/one.png", "--query", "one.jpg", "--out", ".",
        "--force",
    )  # fmt: skip
    assert "masks/one.png: is one of the pictures given" in line
    assert Path("masks/one.png").read_bytes() == before


def test_pictures_that_differ_in_their_suffix_only(run):
    draw(60, 60)[0].save("queries/wide.jpg")
    assert run("predict", *SMALL, *SUPPORT, "--query", "queries", "--out", "out")[0] == 0
    names = sorted(path.name for path in Path("out/masks").iterdir())
    assert names == ["tall.jpg.png", "turned.png.png", "wide.jpg.png", "wide.png.png"]


def test_a_damaged_picture_does_not_stop_the_others(fails):
    whole = Path("queries/tall.jpg").read_bytes()
    Path("queries/tall.jpg").write_bytes(whole[: len(whole) // 2])
    line = fails("predict", *SMALL, *SUPPORT, "--query", "queries", "--out", "out")
    assert "queries/tall.jpg: cannot be decoded: " in line
    assert "failed: 1 of 3; the others are written" in line
    assert sorted(p.name for p in Path("out/masks").iterdir()) == ["turned.png", "wide.png"]


def test_paths_with_colons(run):
    Path("a:b").mkdir()
    Path("one.jpg").rename("a:b/one:1.jpg")
    Path("one.png").rename("a:b/one:1.png")
    code, _, err = run("predict", *SMALL, "--support", "a:b/one:1.jpg:a:b/one:1.png", *QUERY)
    assert code == 0, err
    Path("x").write_text("")
    Path("y:z").write_text("")
    Path("x:y").write_text("")
    Path("z").write_text("")
    with pytest.raises(FssbenchError, match="2 of its colons part it into two files that exist"):
        parse_support("x:y:z")


def spoil(how: str) -> None:
    image, mask = draw(90, 60)
    match how:
        case "corrupt image":
            Path("one.jpg").write_bytes(Path("one.jpg").read_bytes()[:900])
        case "no image at all":
            Path("one.jpg").write_text("text")
        case "mask of another size":
            mask.resize((60, 90)).save("one.png")
        case "mask drawn on the stored pixels":
            save_turned(image, Path("one.jpg"))
            mask.transpose(Image.Transpose.ROTATE_90).save("one.png")
        case "empty mask":
            Image.new("L", (90, 60)).save("one.png")
        case "dark mask":
            Image.new("L", (90, 60), 7).save("one.png")
        case "speck":
            Image.new("RGB", (3000, 2000)).save("one.jpg")
            Image.new("L", (3000, 2000)).save("one.png")
            with Image.open("one.png") as speck:
                speck.putpixel((1234, 777), 255)
                speck.save("one.png")


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("corrupt image", "one.jpg: cannot be decoded"),
        ("no image at all", "one.jpg: cannot be decoded: it is no picture"),
        ("mask of another size", "one.png: the mask is 60x90, its image one.jpg is 90x60; they"),
        ("mask drawn on the stored pixels", "EXIF orientation says (the mask fits it unturned)"),
        ("empty mask", "one.png: the mask is empty"),
        ("dark mask", "one.png: its brightest pixel is 7 of 255"),
        ("speck", "mask 1 marks 1 of 6000000 pixels, too few"),
    ],
)
def test_spoilt_supports(fails, how, expected):
    spoil(how)
    assert expected in fails("predict", *SMALL, *SUPPORT, *QUERY)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--support", "one.jpg", *QUERY], "--support one.jpg: write IMAGE:MASK"),
        (["--support", "one.jpg:", *QUERY], "--support one.jpg:: write IMAGE:MASK"),
        (["--support", "non.jpg:one.png", *QUERY], "non.jpg: there is no such file"),
        (["--support", "one.jpg:non.png", *QUERY], "non.png: there is no such file"),
        (["--support", "C:one.jpg:non.png", *QUERY], "none of its colons part it into two files"),
        ([*SUPPORT, "--query", "nowhere", "--out", "out"], "--query nowhere: there is no such"),
        ([*SUPPORT, "--query", "bare", "--out", "out"], "--query bare: the folder holds no images"),
        (
            [*SUPPORT, "--query", "queries/notes.txt", "--out", "out"],
            "notes.txt: cannot be decoded",
        ),
        ([*SUPPORT, "--query", "one.jpg", "--out", "one.png"], "--out: cannot make the folder"),
        ([*SUPPORT, *QUERY, "--backbone", "tiny-vti"], "did you mean 'tiny-vit'"),
        ([*SUPPORT, *QUERY, "-o", "sise=9"], "did you mean 'size'"),
        ([*SUPPORT, *QUERY, "--device", "tpu9"], "--device tpu9"),
        ([*SUPPORT, *QUERY, "--checkpoint", "nowhere"], "nowhere: there is no such file"),
        (["protoype", *SUPPORT, *QUERY], "did you mean 'prototype'"),
        ([*QUERY], "Missing option '--support'"),
        ([*SUPPORT, "--out", "out"], "Missing option '--query'"),
    ],
)
def test_mistakes(fails, arguments, expected):
    Path("bare").mkdir()
    assert expected in fails("predict", *SMALL, *arguments)
    assert not list(Path().glob("out/*/*"))


def test_an_output_that_cannot_be_written(fails, monkeypatch):
    def full(path, data):
        raise pictures.FssbenchError(f"{path}: cannot write: No space left on device")

    monkeypatch.setattr(pictures, "write_atomically", full)
    line = fails("predict", *SMALL, *SUPPORT, *QUERY)
    assert "out/masks/wide.png: cannot write: No space left on device" in line
