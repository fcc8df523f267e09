"""DeepGlobe, ISIC 2018, chest X-rays and SUIM: small sets in the layouts of archives and field."""

from __future__ import annotations

import io
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

# The colours of the official class_dict.csv of DeepGlobe, and of the README of SUIM.
LAND = {
    "urban": (0, 255, 255), "agriculture": (255, 255, 0), "rangeland": (255, 0, 255),
    "forest": (0, 255, 0), "water": (0, 0, 255), "barren": (255, 255, 255), "unknown": (0, 0, 0),
}  # fmt: skip
SEA = {
    "BW": (0, 0, 0), "HD": (0, 0, 255), "PF": (0, 255, 0), "WR": (0, 255, 255),
    "RO": (255, 0, 0), "RI": (255, 0, 255), "FV": (255, 255, 0), "SR": (255, 255, 255),
}  # fmt: skip
FIELD = ("agriculture", "urban", "rangeland", "forest", "water", "barren")
"""Classes of PATNet's folders 1 to 6: its colours are written with blue first."""


def encoded(pixels, kind):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return data.getvalue()


def picture(size, seed=0):
    smooth = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(smooth).resize((size[1], size[0])))


def painted(size, first, second):
    """The left two thirds of one colour, the right third of another."""
    mask = np.empty((*size, 3), np.uint8)
    mask[:], mask[:, 2 * size[1] // 3 :] = first, second
    return mask


def square(size, at):
    """A white square on black."""
    mask = np.zeros(size, np.uint8)
    mask[at : at + 9, 2:14] = 255
    return mask


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def deepglobe_files():
    """Images of 6 x 6 tiles of 12 pixels; each tile of one row shows two classes."""
    order, files = list(LAND), {}
    for number in range(2):
        mask = np.zeros((72, 72, 3), np.uint8)
        for row in range(6):
            mask[12 * row : 12 * row + 12] = LAND[order[row]]
            for column in range(6):
                right = slice(12 * column + 8, 12 * column + 12)
                mask[12 * row : 12 * row + 12, right] = LAND[order[(row + 1) % 6]]
        mask[:12, :12] = LAND["water"]  # tile 00: one class
        mask[:12, 12:24] = LAND["water"]
        mask[5, 13:18] = LAND["forest"]  # tile 01: 5 of 144 pixels are less than 0.048
        mask[:12, 24:36] = LAND["water"]
        mask[5, 25:32] = LAND["unknown"]  # tile 02: 7 of 144 pixels are more; unknown is a colour
        mask[mask == 255] = 250 - number  # not pure
        files[f"train/{number}7_sat.jpg"] = encoded(picture((72, 72), number), "JPEG")
        files[f"train/{number}7_mask.png"] = encoded(mask, "PNG")
    return {**files, "valid/5_sat.jpg": files["train/07_sat.jpg"], "class_dict.csv": b"name,r,g,b"}


def deepglobe_folders(sat="", mask=""):
    return {
        name: data
        for number, label in enumerate(FIELD, 1)
        for tile in range(3)
        for name, data in (
            (f"{number}/test/origin/119{sat}_0{tile}.jpg", encoded(picture((24, 24)), "JPEG")),
            (f"{number}/test/groundtruth/119{mask}_0{tile}.png",
             encoded(square((24, 24), 3 + number), "PNG")),
        )
    }  # fmt: skip


DIAGNOSES = ("nevus", "seborrheic_keratosis", "melanoma")


def isic_files(deeper=False):
    files = {"class_id.csv": b"ID,Class\n", "ISIC2018_Task1-2_Training_Input/LICENSE.txt": b"text"}
    for number in range(9):
        name, label = f"ISIC_000000{number}", DIAGNOSES[number % 3]
        folder = f"/{number % 3 + 1}" if deeper else ""
        image = encoded(picture((30, 40), number), "JPEG")
        files[f"ISIC2018_Task1-2_Training_Input{folder}/{name}.jpg"] = image
        mask = encoded(square((30, 40), 5 + number), "PNG")
        files[f"ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png"] = mask
        files["class_id.csv"] += f"{name},{label}\n".encode()
    return files


def chest_files():
    files = {}
    for number in range(1, 5):
        for name, end in ((f"CHNCXR_000{number}_0", "_mask"), (f"MCUCXR_000{number}_1", "")):
            files[f"CXR_png/{name}.png"] = encoded(picture((32, 28))[..., 0], "PNG")
            files[f"masks/{name}{end}.png"] = encoded(square((32, 28), 4 + number), "PNG")
    return {**files, "CXR_png/CHNCXR_0336_1.png": files["CXR_png/CHNCXR_0001_0.png"]}


def suim_files():
    files, names = {}, list(SEA)
    for number in range(14):
        part = "TEST" if number < 4 else "train_val"
        first, second = names[number % 8], names[(number + 1) % 8]
        mask = painted((24, 30), SEA[first], SEA[second])
        files[f"{part}/images/d_r_{number}_.jpg"] = encoded(picture((24, 30), number), "JPEG")
        files[f"{part}/masks/d_r_{number}_.bmp"] = encoded(mask, "BMP")
        if part == "TEST":  # the official folder has the masks of some classes, too
            files[f"{part}/masks/HD/d_r_{number}_.bmp"] = encoded(mask[..., 0], "BMP")
    return files


def suim_folders():
    files = {f"images/d_{n}.jpg": encoded(picture((24, 30), n), "JPEG") for n in range(4)}
    for label in ("BW", "FV", "HD", "PF", "RI", "RO", "SR", "WR"):
        for number in range(4):
            shown = square((24, 30), 6) if number else np.zeros((24, 30), np.uint8)
            files[f"masks/{label}/d_{number}.bmp"] = encoded(shown, "BMP")
    return files


def tile_files():
    """DeepGlobe's tiles as data prepare writes them."""
    pairs = zip(FIELD, (*FIELD[1:], FIELD[0]), strict=True)
    files = {}
    for row, (first, second) in enumerate(pairs):
        for number in range(4):
            name = f"{number}_{row}0.png"
            files[f"images/{name}"] = encoded(picture((24, 24), row), "PNG")
            files[f"masks/{name}"] = encoded(painted((24, 24), LAND[first], LAND[second]), "PNG")
    return files


SETS = {
    "deepglobe": ("deepglobe/v1-1k", tile_files()),
    "isic2018": ("isic2018/v1-1k", isic_files()),
    "chest-xray": ("chest-xray/v1", chest_files()),
    "suim": ("suim/v1-1k", suim_files()),
}
FIELDS = {
    "deepglobe": ("deepglobe/patnet-600", deepglobe_folders("_sat", "_mask")),
    "isic2018": ("isic2018/v1-1k", isic_files(deeper=True)),
    "chest-xray": ("chest-xray/patnet-600", chest_files()),
    "suim": ("suim/v1-1k", suim_folders()),
}


def spec(name):
    return registry().get(ProtocolSpec, name)


@pytest.mark.parametrize("sets", [SETS, FIELDS], ids=["official", "field"])
@pytest.mark.parametrize("name", list(SETS))
def test_a_small_set_is_checked_and_evaluated(name, sets, tmp_path, capsys):
    protocol, files = sets[name]
    root = write(tmp_path / "data", files)
    subject = DatasetSubject(name=name, root=root)
    assert not [c for c in DATASET_CHECKS if c.outcome(subject).verdict != "passed"]
    data = fssbench.dataset(name, root)
    assert not [problem for i in data.image_ids("test") for problem in check_image(data, i)]
    assert _run(["data", "check", name, "--data-root", str(root)]) == 0
    assert f"fold 0  {data.classes[-1]}: " in capsys.readouterr().out
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol=protocol, data_root=root, limit=6,
        workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert outcome.record.dataset.name == name
    assert 0 <= outcome.record.scores["miou"] <= 100


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("deepglobe", "masks/1_00.png"),
        ("isic2018", "ISIC2018_Task1_Training_GroundTruth/ISIC_0000003_segmentation.png"),
        ("chest-xray", "CXR_png/CHNCXR_0001_0.png"),
        ("suim", "train_val/masks/d_r_5_.bmp"),
    ],
)
def test_a_missing_file_is_one_line_and_exit_code_2(name, path, tmp_path, capsys):
    root = write(tmp_path / "data", SETS[name][1])
    lost = root / path
    lost.unlink()
    assert _run(["data", "check", name, "--data-root", str(root)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{lost}: no such file" in line


# --- DeepGlobe ------------------------------------------------------------------------------------


def test_classes_of_tiles_are_colours_and_unknown_is_background(tmp_path):
    root = write(tmp_path, tile_files())
    write(root, {"masks/0_00.png": encoded(painted((24, 24), LAND["unknown"], (140, 130, 9)),
                                           "PNG")})  # fmt: skip
    data = fssbench.dataset("deepglobe", root)
    assert data.classes == FIELD
    assert data.class_pixels("0_00") == {0: 8 * 24}
    assert data.class_pixels("1_10") == {1: 16 * 24, 2: 8 * 24}
    mask = data.mask("1_10", 2).numpy()
    np.testing.assert_array_equal(mask, np.arange(24)[None].repeat(24, 0) >= 16)
    assert not data.mask("1_10", 0).any()
    assert count_split(data, "test").official == 9174


@pytest.mark.parametrize("names", [("", ""), ("_sat", "_mask")], ids=["PATNet", "IFA"])
def test_class_folders_of_the_field(names, tmp_path):
    data = fssbench.dataset("deepglobe", write(tmp_path, deepglobe_folders(*names)))
    ids = data.image_ids("test")
    assert len(ids) == 18
    assert ids[3] == f"urban/119{names[0]}_00"
    assert data.class_pixels(ids[3]) == {1: 9 * 12}
    np.testing.assert_array_equal(data.mask(ids[3], 1).numpy() * 255, square((24, 24), 5))
    assert count_split(data, "test").official == 20_542


def packed(path, files, folder=""):
    with zipfile.ZipFile(path, "w") as opened:
        for name, data in files.items():
            opened.writestr(folder + name, data)
    return path


def test_tiles_of_one_class_and_tiles_with_a_sliver_are_not_written(tmp_path):
    archive = packed(tmp_path / "any.zip", deepglobe_files())
    done = prepare(RECIPES["deepglobe"], tmp_path / "to", given=[archive])
    assert dict(done.marker.counts) == {"images": 68, "masks": 68}
    data = fssbench.dataset("deepglobe", done.data_root)
    ids = set(data.image_ids("test"))
    assert ids == {f"{n}7_{r}{c}" for n in "01" for r in range(6) for c in range(6)} - {
        "07_00", "07_01", "17_00", "17_01",
    }  # fmt: skip
    assert data.class_pixels("17_02") == {4: 144 - 7}
    assert data.class_pixels("07_35") == {3: 96, 4: 48}  # forest, then water
    original = np.asarray(Image.open(io.BytesIO(deepglobe_files()["train/17_sat.jpg"])))
    tile = data.image("17_35").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(tile, original[36:48, 60:72])
    assert prepare(RECIPES["deepglobe"], tmp_path / "to").already


def test_a_damaged_satellite_image_is_named(tmp_path):
    archive = packed(tmp_path / "a.zip", {**deepglobe_files(), "train/17_sat.jpg": b"no picture"})
    with pytest.raises(FssbenchError, match="image or mask 17: cannot be decoded"):
        prepare(RECIPES["deepglobe"], tmp_path / "to", given=[archive])


def test_an_image_without_a_mask_is_named(tmp_path):
    files = deepglobe_files()
    del files["train/17_mask.png"]
    with pytest.raises(FssbenchError, match=r"17_sat.jpg: the archive has only this one of image"):
        prepare(RECIPES["deepglobe"], tmp_path / "to", given=[packed(tmp_path / "a.zip", files)])


def test_patnets_draw(tmp_path):
    """The draws of PATNet's data/deepglobe.py with NumPy's global generator and seed 0."""
    data = fssbench.dataset("deepglobe", write(tmp_path, deepglobe_folders()))
    lists = {c: sorted(i for i in data.image_ids("test") if i.startswith(name))
             for c, name in enumerate(FIELD)}  # fmt: skip
    generator, expected = np.random.RandomState(0), []
    for index in range(600):
        images = lists[index % 6]
        query, supports = generator.choice(images, 1, replace=False)[0], []
        while len(supports) < 2:
            drawn = generator.choice(images, 1, replace=False)[0]
            if drawn != query:
                supports.append(drawn)
        expected.append((index % 6, query, tuple(supports)))
    manifest = build_manifest(spec("deepglobe/patnet-600"), data, fold=0, shots=2)
    assert [(e.class_id, e.query, e.support) for e in manifest.episodes] == expected


# --- ISIC 2018 ------------------------------------------------------------------------------------


def test_diagnoses_are_those_of_the_list(tmp_path):
    data = fssbench.dataset("isic2018", write(tmp_path, isic_files()))
    assert data.classes == DIAGNOSES
    assert data.class_pixels("ISIC_0000004") == {1: 9 * 12}
    np.testing.assert_array_equal(data.mask("ISIC_0000004", 1).numpy() * 255, square((30, 40), 9))
    counted = count_split(data, "test")
    assert (counted.images, counted.official) == (9, 2594)
    # PATNet's class folders, numbered differently by its successors, change nothing.
    deeper = fssbench.dataset("isic2018", write(tmp_path / "b", isic_files(deeper=True)))
    assert deeper.fingerprint("test") == data.fingerprint("test")


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (None, "no .*class_id.csv, the classes of the images: data/isic/class_id.csv of https"),
        ("ID,Class\n", "lists no image"),
        ("image,label\na,nevus\n", "line 2: write an image and one of nevus, seborrheic_ker"),
        ("ID,Class\nISIC_0000001,wart\n", "line 2: write an image and one of nevus"),
        ("ID,Class\nISIC_0000001,nevus\nISIC_0000001,nevus\n", "line 3: lists ISIC_0000001 again"),
        ("ID,Class\nISIC_0000077,nevus\n", "lists ISIC_0000077, but there is no .*0000077.jpg"),
    ],
)
def test_a_wrong_list_of_classes(tmp_path, listed, message):
    write(tmp_path, isic_files())
    (tmp_path / "class_id.csv").unlink()
    if listed is not None:
        (tmp_path / "class_id.csv").write_text(listed)
    with pytest.raises(FssbenchError, match=message):
        fssbench.dataset("isic2018", tmp_path)


def test_the_list_may_be_elsewhere_and_images_that_it_leaves_out_are_reported(tmp_path, capsys):
    root = write(tmp_path / "data", isic_files())
    lines = (root / "class_id.csv").read_text().splitlines()
    (root / "class_id.csv").unlink()
    (tmp_path / "list.csv").write_text("\n".join(lines[:-1]))
    given = ["--data-root", str(root), "-d", f"classes={tmp_path / 'list.csv'}"]
    assert _run(["data", "check", "isic2018", *given]) == 1
    assert f"ISIC_0000008.jpg: is not in {tmp_path / 'list.csv'}" in capsys.readouterr().err


def test_images_that_others_have_scaled_are_refused(tmp_path, capsys):
    files = isic_files(deeper=True)  # as DR-Adapter's ISIC_Split.py, which scales images alone
    image = "ISIC2018_Task1-2_Training_Input/1/ISIC_0000000.jpg"
    files[image] = encoded(picture((51, 51)), "JPEG")
    assert _run(["data", "index", "isic2018", "--data-root", str(write(tmp_path, files))]) == 2
    assert "the mask is 40x30, its image ISIC_0000000.jpg is 51x51" in capsys.readouterr().err


def test_the_archives_of_isic(tmp_path):
    files = isic_files()
    del files["class_id.csv"]
    images = packed(tmp_path / "a.zip", {n: d for n, d in files.items() if "Input" in n})
    masks = packed(tmp_path / "b.zip", {n: d for n, d in files.items() if "Truth" in n})
    done = prepare(RECIPES["isic2018"], tmp_path / "to", given=[masks, images])
    assert dict(done.marker.counts) == {"images": 9, "masks": 9}
    (tmp_path / "to/ISIC2018/class_id.csv").write_bytes(isic_files()["class_id.csv"])
    assert len(fssbench.dataset("isic2018", done.data_root).image_ids("test")) == 9


# --- chest X-rays ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "count", "official"),
    [("shenzhen", 4, 566), ("montgomery", 4, 138), ("all", 8, 704)],
)
def test_images_without_a_mask_are_left_out(tmp_path, source, count, official):
    data = fssbench.dataset("chest-xray", write(tmp_path, chest_files()), source=source)
    counted = count_split(data, "test")
    assert (counted.images, counted.official) == (count, official)
    assert "CHNCXR_0336_1" not in data.image_ids("test")
    first = data.image_ids("test")[0]
    np.testing.assert_array_equal(data.mask(first, 0).numpy() * 255, square((32, 28), 5))
    assert data.image(first).shape == (3, 32, 28)
    with pytest.raises(FssbenchError, match="chest-xray has no image 'CHNCXR_0336_1'"):
        data.image("CHNCXR_0336_1")


def test_a_set_without_the_asked_source_says_so(tmp_path):
    files = {name: data for name, data in chest_files().items() if "CHN" not in name}
    with pytest.raises(FssbenchError, match="no mask CHNCXR_… in .*masks; .* -d source=all"):
        fssbench.dataset("chest-xray", write(tmp_path, files))


def test_chest_x_rays_without_images_are_named(tmp_path):
    files = {name: data for name, data in chest_files().items() if "CXR_png" not in name}
    with pytest.raises(FssbenchError, match=r"no CXR_png/ in .*; --data-root must name"):
        fssbench.dataset("chest-xray", write(tmp_path, files))


def test_the_archive_of_chest_x_rays_with_its_copy(tmp_path):
    files = {f"{copy}Lung Segmentation/{name}": data for copy in ("", "data/")
             for name, data in chest_files().items()}  # fmt: skip
    archive = packed(tmp_path / "a.zip", {"Lung Segmentation/NLM-ReadMe.docx": b"text", **files})
    done = prepare(RECIPES["chest-xray"], tmp_path / "to", given=[archive])
    assert dict(done.marker.counts) == {"images": 9, "masks": 8}
    assert len(fssbench.dataset("chest-xray", done.data_root).image_ids("test")) == 4


def test_insid3s_draw_of_both_hospitals(tmp_path):
    """The draws of INSID3's datasets/lung.py with NumPy's global generator and seed 0."""
    root = write(tmp_path, chest_files())
    masks = sorted(path.name for path in (root / "masks").iterdir())
    generator, expected = np.random.RandomState(0), []
    for _ in range(600):
        query, supports = generator.choice(masks, 1, replace=False)[0], []
        while len(supports) < 2:
            drawn = generator.choice(masks, 1, replace=False)[0]
            if drawn != query:
                supports.append(drawn)
        expected.append([name.removesuffix(".png").removesuffix("_mask")
                         for name in (query, *supports)])  # fmt: skip
    protocol = spec("chest-xray/insid3-600")
    data = fssbench.dataset("chest-xray", root, **protocol.data_options)
    manifest = build_manifest(protocol, data, fold=0, shots=2)
    assert [[e.query, *e.support] for e in manifest.episodes] == expected


# --- SUIM -----------------------------------------------------------------------------------------


def test_colours_of_suim(tmp_path):
    data = fssbench.dataset("suim", write(tmp_path, suim_files()))
    ids = {name: class_id for class_id, name in enumerate(data.classes)}
    names = list(SEA)
    for number in range(4):
        shown = {names[number]: 20 * 24, names[number + 1]: 10 * 24}
        expected = {ids[name]: pixels for name, pixels in shown.items() if name != "BW"}
        assert data.class_pixels(f"TEST/d_r_{number}_") == expected
    counted = count_split(data, "test")
    assert (counted.images, counted.official) == (14, 1635)


def test_masks_of_another_size_are_scaled_or_cut_and_reported(tmp_path, capsys, caplog):
    files = suim_files()
    larger = painted((24, 30), SEA["HD"], SEA["RO"])
    files["TEST/masks/d_r_0_.bmp"] = encoded(larger.repeat(2, 0).repeat(2, 1), "BMP")
    cut = np.zeros((30, 30, 3), np.uint8)
    cut[:24] = larger
    files["TEST/masks/d_r_1_.bmp"] = encoded(cut, "BMP")
    root = write(tmp_path / "a", files)
    data = fssbench.dataset("suim", root)
    for number in (0, 1):
        assert data.class_pixels(f"TEST/d_r_{number}_") == {1: 20 * 24, 4: 10 * 24}
    caplog.clear()
    assert _run(["data", "check", "suim", "--data-root", str(root)]) == 1
    assert not caplog.records  # each problem is printed once, at the end
    printed = capsys.readouterr().err
    assert printed.count("d_r_0_.bmp: the mask is 60x48, its image 30x24; it is") == 1
    assert printed.endswith("\n2 problems\n")
    files["TEST/masks/d_r_1_.bmp"] = encoded(cut[:, :20], "BMP")
    narrow = fssbench.dataset("suim", write(tmp_path / "b", files))
    with pytest.raises(FssbenchError, match="the mask is 20x30, its image d_r_1_.jpg is 30x24"):
        narrow.mask("TEST/d_r_1_", 0)


def test_empty_masks_of_class_folders_are_no_queries(tmp_path):
    data = fssbench.dataset("suim", write(tmp_path, suim_folders()))
    assert data.class_pixels("FV/d_0") == {}
    manifest = build_manifest(spec("suim/v1-1k"), data, fold=0, shots=1, limit=70)
    used = {image for e in manifest.episodes for image in (e.query, *e.support)}
    assert used == {f"{label}/d_{n}" for label in data.classes for n in (1, 2, 3)}


def test_the_archive_of_suim(tmp_path):
    archive = packed(tmp_path / "a.zip", suim_files(), "SUIM/")
    done = prepare(RECIPES["suim"], tmp_path / "to", given=[archive])
    assert dict(done.marker.counts) == {"images": 14, "masks": 14}
    assert len(fssbench.dataset("suim", done.data_root).image_ids("test")) == 14


@pytest.mark.parametrize("name", list(SETS))
def test_another_archive_is_refused(name, tmp_path):
    archive = packed(tmp_path / "a.zip", {"README.md": b"text"})
    with pytest.raises(FssbenchError, match=f"is no archive of {name} "):
        prepare(RECIPES[name], tmp_path / "to", given=[archive])


# --- FSS-1000 -------------------------------------------------------------------------------------


def test_the_val_classes_of_fss1000(tmp_path):
    names = ("ant", "bee", "cow")
    pair = {"jpg": encoded(picture((20, 20)), "JPEG"), "png": encoded(square((20, 20), 4), "PNG")}
    files = {f"{name}/{n}.{kind}": pair[kind] for name in names for n in "123" for kind in pair}
    lists = zip(("train", "val", "test"), names, strict=True)
    folder = write(tmp_path / "lists", {f"{split}.txt": name.encode() for split, name in lists})
    root, options = write(tmp_path / "data", files), {"lists": str(folder)}
    assert fssbench.dataset("fss1000", root, **options).fold_classes(0) == (2,)
    protocol = spec("fss1000/v1-val")
    data = fssbench.dataset("fss1000", root, **{**options, **protocol.data_options})
    manifest = build_manifest(protocol, data, fold=0, shots=1)
    assert sorted(e.query for e in manifest.episodes) == ["bee/1", "bee/2", "bee/3"]
