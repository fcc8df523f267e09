"""DAVIS 2017: objects as classes, first frames as supports, J&F, and the official archive."""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile

import numpy as np
import pandas
import pytest
from PIL import Image

import fssbench
from fssbench import FssbenchError
from fssbench.board.board import build_boards
from fssbench.board.site.page import write_page
from fssbench.cli import _run
from fssbench.data.check import check_image, count_split
from fssbench.data.davis import LIST, Davis17
from fssbench.data.prepare.prepare import prepare
from fssbench.data.prepare.recipes import RECIPES
from fssbench.episodes import fssbench_protocols
from fssbench.episodes.protocol import build_manifest
from fssbench.registry import registry
from fssbench.specs import ProtocolSpec
from fssbench.testing.datasets import CHECKS as DATASET_CHECKS
from fssbench.testing.datasets import DatasetSubject

HEIGHT, WIDTH = 48, 64
VIDEOS = {"bike-packing": (2, 5), "blackswan": (1, 3)}
"""Objects and frames of each video."""


def labels_of(video, frame):
    """Squares that move to the right; the second object is gone in frame 2."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number in range(1, VIDEOS[video][0] + 1):
        if (number, frame) != (2, 2):
            labels[20 * number - 16 : 20 * number, 8 + 8 * frame : 24 + 8 * frame] = number
    labels[-1] = 255
    return labels


def files_of(video):
    """The video's files in DAVIS's layout, with palette masks."""
    for frame in range(VIDEOS[video][1]):
        labels = labels_of(video, frame)
        mask = Image.fromarray(labels)
        mask.putpalette([n * 37 % 256 for n in range(768)])
        colours = np.array([[20, 40, 60], [220, 30, 30], [30, 220, 30]], np.uint8)
        picture = Image.fromarray(colours[np.where(labels == 255, 0, labels)])
        for folder, image, kind in (
            ("JPEGImages", picture, "jpg"), ("Annotations", mask, "png"),
        ):  # fmt: skip
            data = io.BytesIO()
            image.save(data, "JPEG" if kind == "jpg" else "PNG")
            yield f"{folder}/480p/{video}/{frame:05}.{kind}", data.getvalue()


@pytest.fixture
def files():
    made = {name: data for video in VIDEOS for name, data in files_of(video)}
    return {**made, "ImageSets/2017/val.txt": "".join(f"{v}\n" for v in VIDEOS).encode()}


@pytest.fixture
def root(files, tmp_path):
    for name, data in files.items():
        path = tmp_path / "DAVIS" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "DAVIS"


@pytest.fixture
def davis(root):
    return fssbench.dataset("davis17", root)


def spec():
    return registry().get(ProtocolSpec, "davis17/v1")


# --- dataset --------------------------------------------------------------------------------------


def test_each_object_of_a_video_is_a_class(davis):
    assert davis.classes == ("bike-packing/1", "bike-packing/2", "blackswan/1")
    assert davis.fold_classes(0) == (0, 1, 2)
    assert len(davis.image_ids("val")) == 8
    assert davis.image("bike-packing/00000").shape == (3, HEIGHT, WIDTH)
    for class_id, number in ((0, 1), (1, 2)):
        mask = davis.mask("bike-packing/00001", class_id).numpy()
        np.testing.assert_array_equal(mask, labels_of("bike-packing", 1) == number)
    assert not davis.mask("bike-packing/00001", 2).any()  # an object of another video
    assert davis.class_pixels("bike-packing/00001") == {0: 256, 1: 256}
    assert davis.class_pixels("bike-packing/00002") == {0: 256}
    assert davis.frames(1) == [f"bike-packing/0000{n}" for n in range(5)]


def test_numbers_above_those_of_the_first_frame_are_no_objects(root):
    path = root / "Annotations/480p/blackswan/00001.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 7, np.uint8)).save(path)
    davis = fssbench.dataset("davis17", root)
    assert davis.classes[2:] == ("blackswan/1",)
    assert davis.class_pixels("blackswan/00001") == {}


def test_check_finds_no_problem_and_counts(davis, root, capsys):
    assert not [problem for i in davis.image_ids("val") for problem in check_image(davis, i)]
    counted = count_split(davis, "val")
    assert (counted.images, counted.official) == (8, 1999)
    assert [line.images for line in counted.classes] == [5, 4, 3]
    assert _run(["data", "check", "davis17", "--data-root", str(root)]) == 0
    assert "fold 0  bike-packing/2: 4 images, 1,024 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("ImageSets/2017/val.txt", "no .*ImageSets/2017/val.txt; --data-root must name"),
        ("JPEGImages/480p/blackswan", r"blackswan: no frames \(.jpg\) of blackswan"),
        ("Annotations/480p/blackswan/00000.png", "no such file"),
    ],
)
def test_what_is_missing_is_named(root, lost, message):
    path = root / lost
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()
    with pytest.raises(FssbenchError, match=message):
        fssbench.dataset("davis17", root)


def test_a_first_frame_without_objects_is_refused(root):
    path = root / "Annotations/480p/blackswan/00000.png"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(path)
    with pytest.raises(FssbenchError, match="the first mask of blackswan shows no object"):
        fssbench.dataset("davis17", root)


def test_conforms(root):
    subject = DatasetSubject(name="davis17", root=root)
    assert not [c for c in DATASET_CHECKS if c.outcome(subject).verdict != "passed"]


# --- protocol -------------------------------------------------------------------------------------


def test_the_first_frame_is_the_support_and_the_last_is_not_scored(davis):
    manifest = build_manifest(spec(), davis, fold=0, shots=1)
    found = [(davis.classes[e.class_id], e.query, e.support) for e in manifest.episodes]
    bikes, swan = ("bike-packing/00000",), ("blackswan/00000",)
    assert found == [
        (f"bike-packing/{number}", f"bike-packing/0000{frame}", bikes)
        for frame in (1, 2, 3)
        for number in (1, 2)
    ] + [("blackswan/1", "blackswan/00001", swan)]
    # Object 2 is not in frame 2, which is scored all the same.
    assert ("bike-packing/2", "bike-packing/00002", bikes) in found


@pytest.mark.parametrize(
    ("videos", "shots", "message"),
    [
        (VIDEOS, 2, "one support, not 2; give --shots 1"),
        ({"blackswan": (1, 2)}, 1, "has 2 frames; three are needed"),
    ],
)
def test_episodes_that_cannot_be(davis, root, videos, shots, message):
    for video, (_, frames) in videos.items():
        for frame in range(frames, 9):
            (root / f"JPEGImages/480p/{video}/{frame:05}.jpg").unlink(missing_ok=True)
    with pytest.raises(FssbenchError, match=message):
        build_manifest(spec(), fssbench.dataset("davis17", root), fold=0, shots=shots)


def test_the_sampler_needs_videos():
    shapes = fssbench.dataset("shapes", images_per_split=60)
    other = ProtocolSpec(
        name="shapes/videos", summary="", dataset="shapes", split="val", sampler="first-frame",
        episodes=None, min_pixels=400,
    )  # fmt: skip
    with pytest.raises(FssbenchError, match="shapes has no videos; use davis17"):
        build_manifest(other, shapes, fold=0, shots=1)


def test_every_evaluation_measures_j_and_f_as_a_mean_over_objects(root, tmp_path):
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol="davis17/v1", data_root=root,
        workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    scores = outcome.record.scores
    assert scores["j_and_f"] == pytest.approx((scores["j"] + scores["f"]) / 2)
    record = json.loads((outcome.folder / "record.json").read_text())
    assert {"miou", "fb_iou", "j", "f", "j_and_f"} <= record["scores"].keys()
    rows = pandas.read_csv(outcome.folder / "rows.csv.gz")
    objects = [rows.loc[rows["class_id"] == c, "region_j"].mean() for c in range(3)]
    assert scores["j"] == pytest.approx(100 * np.mean(objects))
    assert len(rows) == 7
    pages = build_boards([tmp_path / "runs"], tmp_path / "boards")
    assert [page.name for page in pages] == ["davis17.md"]
    measured, _, printed = pages[0].read_text().partition("### Published, 1-shot")
    assert re.search(rf"J&F.*\n.*\n.*\| +{scores['j_and_f']:.1f} \|", measured)
    assert re.search(r"\| FS-DINO +\| ViT-B +\| 76.6 \|", printed)
    assert "J&F |" in printed
    html = write_page(tmp_path / "boards", tmp_path / "page.html").read_text()
    assert html.count("J&amp;F") >= 2


@pytest.mark.realdata
def test_real_frames_in_the_real_layout(shared_data, tmp_path):
    """Frames of DAVIS, with their one object as palette index 1."""
    root = tmp_path / "DAVIS"
    videos = ("blackswan", "cows")
    for video in videos:
        for part in ("JPEGImages", "Annotations"):
            (root / part / "480p" / video).mkdir(parents=True)
        for number in range(1, 9):
            source = shared_data / "davis_mini" / video / str(number)
            name = f"480p/{video}/{number:05}"
            shutil.copy(f"{source}.jpg", root / "JPEGImages" / f"{name}.jpg")
            mask = np.array(Image.open(f"{source}.png").convert("L")) >= 128
            picture = Image.fromarray(mask.astype(np.uint8))
            picture.putpalette([0, 0, 0, 128, 0, 0])
            picture.save(root / "Annotations" / f"{name}.png")
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("\n".join(videos))
    (outcome,) = fssbench.evaluate(
        matcher="prototype", backbone="filterbank", protocol="davis17/v1", data_root=root,
        workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert outcome.record.manifest.episodes == 2 * 6
    assert 20 < outcome.record.scores["j_and_f"] < 100


def test_other_protocols_measure_what_they_did():
    assert {p.name for p in fssbench_protocols() if p.metrics} == {"davis17/v1"}


# --- archive --------------------------------------------------------------------------------------


def packed(path, files):
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("DAVIS/README.md", "readme")
        for name, data in files.items():
            opened.writestr(f"DAVIS/{name}", data)
    return path


def test_the_official_archive_is_laid_out_as_the_dataset_reads_it(files, tmp_path):
    archive = packed(tmp_path / "any-name.zip", files)
    done = prepare(RECIPES["davis17"], tmp_path / "to", given=[archive])
    assert dict(done.marker.counts) == {"frames": 8, "masks": 8, "val.txt": 2}
    assert len(fssbench.dataset("davis17", done.data_root).classes) == 3
    assert prepare(RECIPES["davis17"], tmp_path / "to").already


def test_an_archive_of_2016_or_one_with_gaps_is_refused(files, tmp_path):
    older = {name: data for name, data in files.items() if "2017" not in name}
    with pytest.raises(FssbenchError, match="give the archive of DAVIS 2017, not of 2016"):
        prepare(RECIPES["davis17"], tmp_path / "a", given=[packed(tmp_path / "a.zip", older)])
    del files["Annotations/480p/blackswan/00002.png"]
    with pytest.raises(FssbenchError, match="blackswan has 3 frames and 2 masks"):
        prepare(RECIPES["davis17"], tmp_path / "b", given=[packed(tmp_path / "b.zip", files)])


def test_a_list_without_videos_is_an_error(root):
    (root / LIST).write_text("\n")
    with pytest.raises(FssbenchError, match=r"val.txt: lists no video; write one a line"):
        Davis17(root=root)


def test_an_object_that_is_not_in_the_first_mask_is_an_error(root):
    path = root / "Annotations" / "480p" / "bike-packing" / "00000.png"
    labels = np.array(Image.open(path))
    Image.fromarray(np.where(labels == 2, 2, 0).astype(np.uint8)).save(path)
    with pytest.raises(FssbenchError, match="has the objects 2, but not 1; each object must be"):
        Davis17(root=root)
