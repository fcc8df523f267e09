from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from fssbench.data.coco import Coco, CocoConfig
from fssbench.data.coco_masks import CATEGORIES
from fssbench.episodes.literature import lists
from fssbench.errors import FssbenchError

HEIGHT, WIDTH = 20, 30
PERSON, DOG, TOOTHBRUSH = 1, 18, 90
CLASS_IDS = {category: class_id for class_id, category in enumerate(CATEGORIES)}


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A polygon around whole pixels."""
    return [left, top, right, top, right, bottom, left, bottom]


def area(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[top:bottom, left:right] = 1
    return pixels


def runs(pixels: np.ndarray) -> dict[str, Any]:
    """Run lengths as COCO writes them for crowds: uncompressed, column by column."""
    counts, value = [0], 0
    for pixel in pixels.flatten("F").tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(pixels.shape), "counts": counts}


def annotation(number: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number, "image_id": 42, "category_id": category, "segmentation": segmentation,
        "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": crowd,
    }  # fmt: skip


ANNOTATIONS = [
    annotation(1, PERSON, [box(2, 2, 6, 8), box(10, 2, 12, 4)]),
    annotation(2, PERSON, [box(4, 4, 9, 9)]),
    annotation(3, PERSON, runs(area(0, 6, 20, 12)), crowd=1),
    annotation(4, DOG, [box(4, 4, 9, 9)]),
    annotation(5, TOOTHBRUSH, runs(area(20, 10, 30, 20)), crowd=1),
]


def write(
    root: Path,
    split: str = "val",
    year: str = "2014",
    annotations: Any = ANNOTATIONS,
    first: int = 42,
) -> Path:
    """Two images, of which one is annotated."""
    prefix = f"COCO_{split}2014_" if year == "2014" else ""
    names = {number: f"{prefix}{number:012d}.jpg" for number in (first + 99, first)}
    folder = root / f"{split}{year}" if year else root / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for name in names.values():
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for number, name in names.items()
        ],
        "annotations": [{**one, "image_id": first} for one in annotations],
        "categories": [{"id": number, "name": name} for number, name in CATEGORIES.items()],
    }
    path = root / "annotations" / (f"instances_{split}{year}.json" if year else "instances.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def error_of(function, *arguments, **keywords) -> str:
    with pytest.raises(FssbenchError) as raised:
        function(*arguments, **keywords)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_folds_are_interleaved(tmp_path: Path) -> None:
    write(tmp_path)
    coco = Coco(root=tmp_path)
    assert len(coco.classes) == 80
    assert (coco.classes[0], coco.classes[11], coco.classes[79]) == (
        "person", "stop sign", "toothbrush",
    )  # fmt: skip
    for fold in range(4):
        assert coco.fold_classes(fold) == tuple(range(fold, 80, 4))
        assert coco.fold_classes(fold)[-1] == 76 + fold
    assert "folds 0 to 3" in error_of(coco.fold_classes, -1)


def test_a_mask_is_the_union_of_instances_with_crowds_ignored(tmp_path: Path) -> None:
    write(tmp_path)
    coco = Coco(root=tmp_path)
    persons = area(2, 2, 6, 8) | area(10, 2, 12, 4) | area(4, 4, 9, 9)
    wanted = np.where(persons == 1, 1, area(0, 6, 20, 12) * 255)
    mask = coco.mask("000000000042", 0)
    assert mask.numpy().dtype == np.uint8
    assert np.array_equal(mask.numpy(), wanted)
    # A class that overlaps keeps its pixels, and other classes' crowds are background.
    assert np.array_equal(coco.mask("000000000042", CLASS_IDS[DOG]).numpy(), area(4, 4, 9, 9))
    assert set(coco.mask("000000000042", CLASS_IDS[TOOTHBRUSH]).unique().tolist()) == {0, 255}
    assert coco.mask("000000000042", 5).sum() == 0
    assert coco.mask("000000000141", 0).sum() == 0
    # Pixels are those of the masks; the field `area` is not read and crowds count for nothing.
    assert coco.class_pixels("000000000042") == {0: int(persons.sum()), CLASS_IDS[DOG]: 25}
    assert coco.class_pixels("000000000141") == {}


def test_painted_masks_belong_to_the_last_instance_and_have_no_crowds(tmp_path: Path) -> None:
    write(tmp_path)
    painted = Coco(root=tmp_path, config=CocoConfig(overlaps="painted"))
    persons = (area(2, 2, 6, 8) | area(10, 2, 12, 4)) & ~area(4, 4, 9, 9)
    mask = painted.mask("000000000042", 0)
    assert mask.numpy().dtype == np.uint8
    assert np.array_equal(mask.numpy(), persons & 1)  # person 2 is below the dog
    assert np.array_equal(painted.mask("000000000042", CLASS_IDS[DOG]).numpy(), area(4, 4, 9, 9))
    assert painted.mask("000000000042", CLASS_IDS[TOOTHBRUSH]).sum() == 0
    assert painted.class_pixels("000000000042") == {0: int((persons & 1).sum()), CLASS_IDS[DOG]: 25}
    union = Coco(root=tmp_path)
    assert painted.fingerprint("val") != union.fingerprint("val")
    # The order is that of the file, across classes.
    other = write(tmp_path / "other", annotations=ANNOTATIONS[::-1])
    last = Coco(root=other.parents[1], config=CocoConfig(overlaps="painted"))
    assert (last.mask("000000000042", 0).numpy() == area(4, 4, 9, 9)).sum() < HEIGHT * WIDTH
    assert last.class_pixels("000000000042") == {0: int((persons & 1).sum()) + 25}


def test_painted_pairs_are_those_of_hsnets_lists() -> None:
    """Of 721 listed pairs of these photographs 714 have 2,048 painted pixels, and no other has."""
    root = Path(__file__).parents[3] / "shared" / "data" / "coco_mini"
    if not root.is_dir():
        pytest.skip("no photographs beside the checkout (../shared/data)")
    pairs = {
        overlaps: [
            pixels
            for coco in [Coco(root=root, config=CocoConfig(overlaps=overlaps))]
            for image_id in coco.image_ids("val")
            for pixels in coco.class_pixels(image_id).values()
        ]
        for overlaps in ("union", "painted")
    }
    large = {name: sum(count >= 2048 for count in found) for name, found in pairs.items()}
    assert large == {"union": 748, "painted": 714}
    # A third of the pairs is below the size, so that a training without it shows tiny objects.
    assert round(100 * (1 - large["union"] / len(pairs["union"]))) == 34


def test_painted_pairs_are_compared_with_hsnets_lists() -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "coco_mini"
    splits = os.environ.get("FSSBENCH_HSNET_LISTS")
    if splits is None or not root.is_dir():
        pytest.skip("FSSBENCH_HSNET_LISTS does not name HSNet's data/splits, or no ../shared/data")
    content = json.loads((root / "annotations" / "instances.json").read_text())
    known = {f"{image['id']:012d}" for image in content["images"] if image["file_name_2014"]}
    listed = {
        (lists.image_id(name), class_id)
        for path in (Path(splits) / "coco").rglob("fold*.pkl")
        for class_id, names in lists.read_pickle(path).items()
        for name in names
        if lists.image_id(name) in known
    }
    coco = Coco(root=root, config=CocoConfig(overlaps="painted"))
    pixels = {(i, c): n for i in sorted(known) for c, n in coco.class_pixels(i).items()}
    large = {pair for pair, count in pixels.items() if count >= 2048}
    assert len(listed) == 721
    assert large <= listed
    assert sorted(pixels[pair] for pair in listed - large) == [
        1864, 1917, 1945, 1968, 1986, 2009, 2037,
    ]  # fmt: skip


@pytest.mark.parametrize("year", ["2014", "2017", ""])
@pytest.mark.parametrize("nested", [False, True])
def test_layouts(tmp_path: Path, year: str, nested: bool) -> None:
    write(tmp_path, "val", year)
    write(tmp_path, "train", year, first=7 if year else 42)
    if year and nested:
        (tmp_path / "images").mkdir()
        for split in ("train", "val"):
            (tmp_path / f"{split}{year}").rename(tmp_path / "images" / f"{split}{year}")
    coco = Coco(root=tmp_path)
    assert coco.image_ids("val") == ["000000000042", "000000000141"]
    trained = ["000000000007", "000000000106"] if year else ["000000000042", "000000000141"]
    assert coco.image_ids("train") == trained
    for image_id in [*coco.image_ids("train"), *coco.image_ids("val")]:
        assert coco.image(image_id).shape == (3, HEIGHT, WIDTH)
    assert coco.class_pixels(trained[0])[CLASS_IDS[DOG]] == 25
    assert coco.fingerprint("train") != coco.fingerprint("val")


def test_2014_comes_first_unless_another_year_is_asked(tmp_path: Path) -> None:
    write(tmp_path, "val", "")
    assert Coco(root=tmp_path).year == ""
    write(tmp_path, "val", "2017", first=7)
    assert Coco(root=tmp_path).year == "2017"
    write(tmp_path, "val", "2014")
    assert Coco(root=tmp_path).year == "2014"
    config = CocoConfig(year="2017")
    assert Coco(root=tmp_path, config=config).image_ids("val")[0] == "000000000007"


def test_only_the_split_that_is_asked_is_read(tmp_path: Path) -> None:
    write(tmp_path, "val")
    write(tmp_path, "train", first=7).write_text("{")
    coco = Coco(root=tmp_path)
    assert coco.class_pixels("000000000042")[0] > 0
    assert coco.image("000000000042").shape == (3, HEIGHT, WIDTH)
    assert "instances_train2014.json: is not a complete JSON file" in error_of(
        coco.image_ids, "train"
    )


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    Coco(root=tmp_path).prepare("val")
    assert capfd.readouterr() == ("", "")


def test_annotations_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    Coco(root=tmp_path).prepare("val")
    monkeypatch.delattr("fssbench.data.coco_instances.read_annotations")
    again = Coco(root=tmp_path)
    assert (again.mask("000000000042", 0) == 1).sum() == again.class_pixels("000000000042")[0]
    copy = pickle.loads(pickle.dumps(again))
    assert len(pickle.dumps(again)) < 1000
    assert copy.mask("000000000042", 0).equal(again.mask("000000000042", 0))


def test_compressed_run_lengths(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (HEIGHT, WIDTH), np.uint8)
    text = rle.encode(np.asfortranarray(pixels))["counts"].decode()
    segmentation = {"size": [HEIGHT, WIDTH], "counts": text}
    write(tmp_path, annotations=[annotation(1, DOG, segmentation)])
    assert np.array_equal(Coco(root=tmp_path).mask("000000000042", 16).numpy(), pixels)


@pytest.mark.parametrize(
    "polygon",
    [
        [],
        [1, 2, 3, 4],
        [1, 1, 9, 1, 9, 9, 1],
        [float("nan")] * 6,
        [0, 0, 1e9, 0, 1e9, 1e9],
        None,
        "x",
    ],
    ids=str,
)
def test_polygons_that_are_none_are_left_out(
    tmp_path: Path, polygon: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = annotation(1, DOG, [polygon, box(4, 4, 9, 9)])
    write(tmp_path, annotations=[good, annotation(2, PERSON, [polygon]), annotation(3, DOG, [])])
    assert Coco(root=tmp_path).class_pixels("000000000042") == {CLASS_IDS[DOG]: 25}
    assert "3 polygons" in caplog.text
    caplog.clear()
    again = Coco(root=tmp_path)  # from the index in the cache folder
    again.prepare("val")
    assert "3 polygons are invalid or empty" in caplog.text
    assert len(again.problems("val")) == 1


def test_a_polygon_without_the_list_around_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path, annotations=[annotation(1, DOG, box(4, 4, 9, 9))])
    made = Coco(root=tmp_path)
    assert made.class_pixels("000000000042") == {CLASS_IDS[DOG]: 25}
    assert made.problems("val") == []
    assert not caplog.text


@pytest.mark.parametrize(
    ("value", "pixels"),
    [(0, 25), (1, 0), (False, 25), (True, 0), ("0", 25), ("1", 0), (None, 25)],
)
def test_iscrowd_is_read_by_value(tmp_path: Path, value: Any, pixels: int) -> None:
    one = {**annotation(1, DOG, [box(4, 4, 9, 9)]), "iscrowd": value}
    write(tmp_path, annotations=[one])
    found = Coco(root=tmp_path).class_pixels("000000000042")
    assert found.get(CLASS_IDS[DOG], 0) == pixels


def test_an_unknown_value_of_iscrowd_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, annotations=[{**annotation(7, DOG, [box(4, 4, 9, 9)]), "iscrowd": "maybe"}])
    message = error_of(Coco(root=tmp_path).prepare, "val")
    assert "iscrowd of annotation 7 is 'maybe', not 0 or 1" in message


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "neither polygons nor run lengths"),
        ({"counts": [1]}, "neither polygons nor run lengths"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "do not add up to 600 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [601, -1]}, "do not add up to 600 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": "00000"}, "do not add up to 600 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": 7}, ""),
        ({"size": [WIDTH, HEIGHT], "counts": [600]}, "has the size [30, 20], its image [20, 30]"),
    ],
)
def test_segmentations_that_make_no_sense(tmp_path: Path, segmentation: Any, words: str) -> None:
    path = write(tmp_path, annotations=[annotation(77, DOG, segmentation)])
    message = error_of(Coco(root=tmp_path).prepare, "val")
    assert message.startswith(f"{path}: segmentation of annotation 77: ")
    assert words in message


@pytest.mark.parametrize(
    ("key", "change", "words"),
    [
        ("images", lambda one: one.pop("height"), "an entry has no 'height'"),
        ("images", lambda one: one.update(id="x"), "must be a COCO file of object instances"),
        (
            "images",
            lambda one: one.update(height=10**30),
            "must be a COCO file of object instances",
        ),
        ("annotations", lambda one: one.pop("segmentation"), "an entry has no 'segmentation'"),
        ("annotations", lambda one: one.update(image_id=1), "annotation 1 is of image 1, which"),
        ("annotations", lambda one: one.update(category_id=12), "annotation 1 is of category 12,"),
        (
            "categories",
            lambda one: one.update(name="robot"),
            "category 1 is 'robot', in COCO it is",
        ),
        (
            "categories",
            lambda one: one.update(id=12),
            "category 12 is 'person', in COCO it is None",
        ),
    ],
)
def test_wrong_annotation_files(tmp_path: Path, key: str, change: Any, words: str) -> None:
    path = write(tmp_path)
    content = json.loads(path.read_text())
    change(content[key][0])
    path.write_text(json.dumps(content))
    message = error_of(Coco(root=tmp_path).prepare, "val")
    assert message.startswith(f"{path}: ")
    assert words in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"images": [', "is not a complete JSON file"),
        (b"\xff\xfe\xfd", "is not a complete JSON file"),
        (b"", "is not a complete JSON file"),
        (b"[]", "has no images, annotations, categories"),
        (b'{"images": []}', "has no annotations, categories"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, content: bytes, words: str) -> None:
    path = write(tmp_path)
    path.write_bytes(content)
    message = error_of(Coco(root=tmp_path).prepare, "val")
    assert message.startswith(f"{path}: ")
    assert words in message


def test_a_file_without_annotations(tmp_path: Path) -> None:
    write(tmp_path, annotations=[])
    for coco in (Coco(root=tmp_path), Coco(root=tmp_path)):
        assert len(coco.image_ids("val")) == 2
        assert coco.class_pixels("000000000042") == {}


def test_wrong_roots(tmp_path: Path) -> None:
    assert error_of(Coco, root=None) == (
        "coco20i needs --data-root, the folder that holds annotations/ and the images"
    )
    assert f"no folder {tmp_path}/no; --data-root" in error_of(Coco, root=tmp_path / "no")
    names = "instances_val2014.json or instances_val2017.json or instances.json"
    assert f"no {names} in {tmp_path}/annotations; --data-root" in error_of(Coco, root=tmp_path)
    write(tmp_path, "val", "2014")
    config = CocoConfig(year="2017")
    assert "no instances_val2017.json in" in error_of(Coco, root=tmp_path, config=config)
    message = error_of(Coco(root=tmp_path).image_ids, "train")
    assert message.startswith(f"{tmp_path}/annotations/instances_train2014.json: no such file, the")


def test_images_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "val2014" / "COCO_val2014_000000000042.jpg"
    coco = Coco(root=tmp_path)
    Image.new("RGB", (31, 20)).save(path)
    message = error_of(coco.mask, "000000000042", 0)
    assert f"the mask is 30x20, its image {path.name} is 31x20" in message
    path.unlink()
    for function in (coco.image, lambda image_id: coco.mask(image_id, 0)):
        assert error_of(function, "000000000042").startswith(f"{path}: no such image; ")
    for function in (coco.image, coco.class_pixels, lambda image_id: coco.mask(image_id, 0)):
        assert "coco20i has no image '42' in " in error_of(function, "42")


@pytest.mark.realdata
def test_real_images(shared_data: Path) -> None:
    coco = Coco(root=shared_data / "coco_mini")
    ids = coco.image_ids("val")
    assert len(ids) == 300
    counts = [0] * 80
    for image_id in ids:
        for class_id in coco.class_pixels(image_id):
            counts[class_id] += 1
    # Images per category without crowds, from the table that describes the real images.
    assert tuple(counts) == (
        160, 15, 30, 10, 7, 10, 9, 14, 10, 10, 7, 10, 8, 10, 10, 10, 11, 5, 6, 7,
        8, 6, 4, 6, 15, 10, 21, 10, 10, 4, 6, 5, 12, 6, 8, 10, 9, 6, 4, 38,
        13, 42, 14, 18, 23, 39, 10, 10, 9, 10, 10, 9, 3, 10, 10, 10, 34, 10, 17, 10,
        41, 10, 19, 10, 10, 10, 11, 12, 10, 17, 6, 24, 13, 18, 10, 10, 6, 10, 4, 8,
    )  # fmt: skip


@pytest.mark.realdata
def test_real_masks_have_the_official_area(shared_data: Path) -> None:
    coco = Coco(root=shared_data / "coco_mini")
    path = shared_data / "coco_mini" / "annotations" / "instances.json"
    of_class: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in json.loads(path.read_text())["annotations"]:
        key = f"{one['image_id']:012d}", CLASS_IDS[one["category_id"]]
        of_class.setdefault(key, []).append(one)
    single = {key: found[0] for key, found in of_class.items() if len(found) == 1}
    compared = [(*key, one["area"]) for key, one in single.items() if not one["iscrowd"]]
    assert len(compared) > 500
    for image_id, class_id, official in compared:
        pixels = coco.class_pixels(image_id).get(class_id, 0)
        assert pixels == pytest.approx(official, rel=0.15, abs=60)
    for image_id, class_id, _ in compared[::50]:
        assert coco.mask(image_id, class_id).shape == coco.image(image_id).shape[1:]
        assert int(coco.mask(image_id, class_id).sum()) == coco.class_pixels(image_id)[class_id]
