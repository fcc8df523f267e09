"""Datasets from archives in the real formats; see `archives_for_tests`."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import archives_for_tests as made
import attrs
import numpy as np
import pytest
from PIL import Image

from fssbench.data.coco import Coco
from fssbench.data.fss1000 import Fss1000
from fssbench.data.pascal import Pascal
from fssbench.data.prepare import disk, pascal
from fssbench.data.prepare import prepare as module
from fssbench.data.prepare.archives import ARCHIVES
from fssbench.data.prepare.marker import Marker
from fssbench.data.prepare.prepare import DOWNLOADS, prepare
from fssbench.data.prepare.recipes import RECIPES, find_recipe
from fssbench.errors import FssbenchError

PASCAL = RECIPES["pascal5i"]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of all files."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix != ".lock"
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in snapshot(folder).items()}


@pytest.fixture
def archives(tmp_path):
    return made.write(
        tmp_path / "archives",
        {
            "VOCtrainval_11-May-2012.tar": made.tar_bytes(made.voc_files()),
            "benchmark.tgz": made.tar_bytes(made.sbd_files(), "w:gz"),
        },
    )


@pytest.fixture
def given(archives):
    return list(archives.values())


@pytest.fixture
def to(tmp_path):
    return tmp_path / "data"


# --- what is made ---------------------------------------------------------------------------------


def test_pascal_is_laid_out_as_its_dataset_reads_it(given, to):
    done = prepare(PASCAL, to, given=given)
    assert not done.already
    assert done.marker.counts == {
        "JPEGImages": 6, "SegmentationClass": 3, "SegmentationClassAug": 5, "val.txt": 1,
        "train_aug.txt": 4,
    }  # fmt: skip
    dataset = Pascal(root=done.data_root)
    assert dataset.labels == "SegmentationClassAug"
    assert list(dataset.image_ids("val")) == ["2007_000033"]
    assert list(dataset.image_ids("train")) == [
        "2007_000032", "2007_000039", "2008_000002", "2008_000003",
    ]  # fmt: skip
    for image_id in ("2008_000002", "2008_000003"):
        with Image.open(dataset.mask_path(image_id)) as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), made.sbd_labels(image_id))
    assert dataset.image("2008_000003").shape == (3, made.HEIGHT, made.WIDTH)


def test_vocs_own_masks_win_and_its_val_images_stay_val(given, to):
    prepare(PASCAL, to, given=given)
    folder = to / "VOC2012" / "SegmentationClassAug"
    for image_id in ("2007_000033", "2007_000032"):  # SBD has both, without the border
        assert (folder / f"{image_id}.png").read_bytes() == made.png(made.voc_labels(image_id))
    lists = to / "VOC2012" / "ImageSets" / "Segmentation"
    assert "2007_000033" not in (lists / "train_aug.txt").read_text().split()
    assert (lists / "val.txt").read_text() == "2007_000033\n"


def test_the_palette_is_vocs():
    colours = np.frombuffer(pascal.voc_palette(), np.uint8).reshape(256, 3).tolist()
    # As in the devkit: aeroplane, bicycle, person, tvmonitor, void.
    assert [colours[n] for n in (0, 1, 2, 15, 20, 255)] == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
    ]  # fmt: skip


@pytest.mark.parametrize("year", ["2014", "2017"])
def test_coco_is_laid_out_as_its_dataset_reads_it(year, tmp_path, to):
    paths = made.write(
        tmp_path / "archives",
        {f"{key}.zip": made.zip_bytes(files) for key, files in made.coco_files(year).items()},
    )
    done = prepare(find_recipe("coco", year), to, given=list(paths.values()))
    assert done.marker.counts == {"annotations": 2, f"train{year}": 4, f"val{year}": 3}
    dataset = Coco(root=done.data_root)
    assert dataset.year == year
    assert list(dataset.image_ids("val")) == [f"{n:012d}" for n in (11, 12, 13)]
    dog = dataset.mask("000000000012", 16)
    assert dog.shape == (made.HEIGHT, made.WIDTH)
    assert int((dog == 1).sum()) > 30
    person = dataset.mask("000000000012", 0)
    assert int((person == 255).sum()) == 15  # the crowd, given as run lengths
    assert dataset.image("000000000003").shape == (3, made.HEIGHT, made.WIDTH)
    assert not (to / "annotations" / f"captions_val{year}.json").exists()


def test_fss1000_is_laid_out_as_its_dataset_reads_it(tmp_path, to):
    paths = made.write(tmp_path / "in", {"fewshot_data.zip": made.zip_bytes(made.fss_files())})
    done = prepare(RECIPES["fss1000"], to, given=list(paths.values()))
    assert done.marker.counts == {"classes": 2, "pictures": 20, "masks": 20}
    dataset = Fss1000(root=done.data_root)
    assert dataset.classes == ("abacus", "zucchini")
    assert len(dataset.image_ids("test")) == 20
    assert int(dataset.mask("abacus/3", 0).sum()) == 6 * 4
    assert dataset.image("zucchini/10").shape == (3, made.HEIGHT, made.WIDTH)


def test_real_masks_survive_the_way_through_sbd(shared_data, tmp_path, to):
    """Real label maps as SBD files: the same classes come out, pixel by pixel."""
    voc = shared_data / "voc_mini" / "VOC2012"
    names = (voc / "ImageSets/Segmentation/train_aug.txt").read_text().split()[-4:]
    labels = {}
    for name in names:
        with Image.open(voc / "SegmentationClassAug" / f"{name}.png") as picture:
            found = np.array(picture)
        labels[name] = np.where(found == 255, 0, found).astype(np.uint8)
    voc_files = made.voc_files()
    sbd_files = made.sbd_files()
    for name in names:
        image = (voc / "JPEGImages" / f"{name}.jpg").read_bytes()
        voc_files[f"VOCdevkit/VOC2012/JPEGImages/{name}.jpg"] = image
        sbd_files[f"benchmark_RELEASE/dataset/cls/{name}.mat"] = made.mat(labels[name])
    paths = made.write(
        tmp_path / "in",
        {"a": made.tar_bytes(voc_files), "b": made.tar_bytes(sbd_files, "w:gz")},
    )
    dataset = Pascal(root=prepare(PASCAL, to, given=list(paths.values())).data_root)
    for name in names:
        dataset.image(name)
        for class_id, pixels in dataset.count_pixels(name).items():
            assert int((dataset.mask(name, class_id) == 1).sum()) == pixels
        assert sum(dataset.count_pixels(name).values()) == int((labels[name] > 0).sum())


# --- again, and after a kill ----------------------------------------------------------------------


def test_a_second_call_changes_nothing(given, to):
    prepare(PASCAL, to, given=given)
    before = snapshot(to)
    assert prepare(PASCAL, to, given=given).already
    assert prepare(PASCAL, to).already  # without the archives, too
    assert snapshot(to) == before


def test_what_was_lost_is_unpacked_again(given, to, caplog):
    prepare(PASCAL, to, given=given)
    whole = contents(to)
    (to / "VOC2012" / "JPEGImages" / "2008_000002.jpg").unlink()
    with pytest.raises(FssbenchError, match="still needs VOCtrainval_11-May-2012.tar .* and bench"):
        prepare(PASCAL, to)
    assert "files are missing" in caplog.text
    assert not prepare(PASCAL, to, given=given).already
    assert contents(to) == whole


@pytest.mark.parametrize("after", range(1, 24, 3))
def test_stopped_at_any_file_it_goes_on(after, given, tmp_path, to, monkeypatch):
    """Killed before the rename of each third file; the half-written one stays behind."""
    prepare(PASCAL, tmp_path / "whole", given=given)
    left = after
    replace = os.replace

    def stop(source, target):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(PASCAL, to, given=given)
    done = prepare(PASCAL, to, given=given[::-1])
    assert not done.already
    partial = {name for name in contents(to) if name.endswith(".partial")}
    assert not partial
    assert contents(to) == contents(tmp_path / "whole")


_KILLED = """
import sys, time
from pathlib import Path
import fssbench.data.prepare.disk as disk
from fssbench.data.prepare import coco, fss1000, pascal
from fssbench.data.prepare.prepare import prepare
from fssbench.data.prepare.recipes import RECIPES
put = disk.put
def slow(path, data):
    time.sleep(0.02)
    return put(path, data)
pascal.put = slow
Path(sys.argv[1] + ".started").touch()
prepare(RECIPES["pascal5i"], Path(sys.argv[1]), given=[Path(p) for p in sys.argv[2:]])
"""


def test_kill_nine(given, tmp_path, to):
    prepare(PASCAL, tmp_path / "whole", given=given)
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(to), *map(str, given)])
    images = to / "VOC2012" / "JPEGImages"
    until = time.monotonic() + 60
    while not (images.is_dir() and any(images.iterdir())):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    marker = Marker.read(to, "pascal5i")
    assert marker is not None
    assert not marker.complete
    assert not prepare(PASCAL, to, given=given).already
    assert {n: d for n, d in contents(to).items() if not n.endswith(".partial")} == contents(
        tmp_path / "whole"
    )


def test_another_archive_does_not_get_mixed_in(given, archives, tmp_path, to):
    prepare(PASCAL, to, given=given)
    files = made.sbd_files()
    files["benchmark_RELEASE/dataset/cls/2008_000002.mat"] = made.mat(
        np.full((made.HEIGHT, made.WIDTH), 3, np.uint8)
    )
    other = made.write(tmp_path / "other", {"benchmark.tgz": made.tar_bytes(files, "w:gz")})
    with pytest.raises(FssbenchError, match=r"was made of another benchmark\.tgz"):
        prepare(PASCAL, to, given=list(other.values()))


# --- wrong inputs ---------------------------------------------------------------------------------


def test_a_missing_archive_is_named_with_its_address(archives, to):
    with pytest.raises(FssbenchError) as caught:
        prepare(PASCAL, to, given=[archives["VOCtrainval_11-May-2012.tar"]])
    (sbd,) = (a for a in ARCHIVES["pascal5i"] if a.key == "sbd")
    assert sbd.url in str(caught.value)
    assert "VOCtrainval" not in str(caught.value)
    assert not to.exists()


def test_wrong_archives(archives, given, tmp_path, to):
    other = made.write(
        tmp_path / "other",
        {
            "cats.zip": made.zip_bytes({"cats/tom.jpg": made.jpg(1)}),
            "empty.zip": made.zip_bytes({}),
            "text.tar": b"no archive at all" * 100,
            "nothing.tgz": b"",
        },
    )
    for name, message in (
        ("cats.zip", r"is no archive of pascal5i \(holds cats/tom.jpg, …\); it needs VOC"),
        ("empty.zip", "holds no file"),
        ("text.tar", "is no tar or zip archive"),
        ("nothing.tgz", "is no tar or zip archive"),
    ):
        with pytest.raises(FssbenchError, match=message):
            prepare(PASCAL, to, given=[*given, other[name]])
    with pytest.raises(FssbenchError, match="no such file"):
        prepare(PASCAL, to, given=[tmp_path / "nowhere.tar"])
    with pytest.raises(FssbenchError, match=r"is benchmark\.tgz, as .* is; give one"):
        prepare(PASCAL, to, given=[given[1], given[1]])
    assert not to.exists()


@pytest.mark.parametrize("keep", [0.02, 0.3, 0.6, 0.8])
@pytest.mark.parametrize("which", [0, 1])
def test_a_cut_off_archive(which, keep, given, to):
    """Also exactly between two members, which tarfile takes for the end."""
    whole = given[which].read_bytes()
    given[which].write_bytes(whole[: int(len(whole) * keep) // 512 * 512 or 300])
    with pytest.raises(FssbenchError, match="damaged or cut off|cut off; download it again"):
        prepare(PASCAL, to, given=given)
    marker = Marker.read(to, "pascal5i")
    assert marker is None or not marker.complete


def test_a_damaged_archive(tmp_path, to):
    data = bytearray(made.zip_bytes(made.fss_files()))
    place = data.find(made.fss_files()["fewshot_data/fewshot_data/abacus/5.png"][:8])
    place = place if place > 0 else len(data) // 2
    data[place + 40] ^= 0xFF
    paths = made.write(tmp_path / "in", {"fss.zip": bytes(data)})
    with pytest.raises(FssbenchError, match="damaged or cut off"):
        prepare(RECIPES["fss1000"], to, given=list(paths.values()))


def link(name: str, to: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, to
    return info


@pytest.mark.parametrize(
    "name",
    ["VOCdevkit/VOC2012/JPEGImages/../../../../evil.jpg", "/etc/evil", "..\\evil", "C:/evil"],
)
def test_paths_that_lead_out(name, given, to, tmp_path):
    given[0].write_bytes(made.tar_bytes({**made.voc_files(), name: b"evil"}))
    with pytest.raises(FssbenchError, match="leads out of it"):
        prepare(PASCAL, to, given=given)
    assert not list(tmp_path.rglob("evil*"))


def test_links_are_never_made(given, to, tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    extra = [
        link("VOCdevkit/VOC2012/JPEGImages/2010_000001.jpg", str(secret)),
        link("VOCdevkit/VOC2012/SegmentationObject", str(tmp_path)),
    ]
    given[0].write_bytes(made.tar_bytes(made.voc_files(), extra=extra))
    prepare(PASCAL, to, given=given)
    assert not [path for path in to.rglob("*") if path.is_symlink()]
    assert not (to / "VOC2012" / "JPEGImages" / "2010_000001.jpg").exists()


def test_a_bomb_is_not_unpacked(given, to, monkeypatch):
    """A gigabyte of zeros in a few hundred kilobytes; and a file count beyond reason."""
    small = tuple(
        attrs.evolve(a, most_bytes=1 << 20) if a.key == "sbd" else a for a in PASCAL.archives
    )
    monkeypatch.setitem(ARCHIVES, "pascal5i", small)
    files = {**made.sbd_files(), "benchmark_RELEASE/dataset/cls/2008_009999.mat": bytes(4 << 20)}
    given[1].write_bytes(made.tar_bytes(files, "w:gz"))
    with pytest.raises(FssbenchError, match=r"holds more than benchmark\.tgz does"):
        prepare(PASCAL, to, given=given)
    many = tuple(attrs.evolve(a, most_members=5) for a in PASCAL.archives)
    monkeypatch.setitem(ARCHIVES, "pascal5i", many)
    with pytest.raises(FssbenchError, match="holds more than"):
        prepare(PASCAL, to, given=given)


def test_a_zip_with_wrong_sizes(tmp_path, to):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("fewshot_data/abacus/1.jpg", bytes(1 << 20))
    lying = data.getvalue().replace((1 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    paths = made.write(tmp_path / "in", {"fss.zip": lying})
    with pytest.raises(FssbenchError, match="damaged or cut off"):
        prepare(RECIPES["fss1000"], to, given=list(paths.values()))


@pytest.mark.parametrize(
    "content",
    [b"MATLAB 5.0 but not", made.mat(np.full((4, 4), 21, np.uint8)), made.mat(np.zeros((2, 2)))],
    ids=["no mat file", "a class too many", "not bytes"],
)
def test_a_wrong_mat_file(content, given, to):
    files = {**made.sbd_files(), "benchmark_RELEASE/dataset/cls/2008_000002.mat": content}
    given[1].write_bytes(made.tar_bytes(files, "w:gz"))
    with pytest.raises(FssbenchError, match=r"2008_000002\.mat: is no class map of SBD"):
        prepare(PASCAL, to, given=given)


def test_archives_that_do_not_belong_together(given, to):
    files = {**made.sbd_files(), "benchmark_RELEASE/dataset/cls/2009_000001.mat": made.mat(
        made.sbd_labels("2009_000001"))}  # fmt: skip
    given[1].write_bytes(made.tar_bytes(files, "w:gz"))
    with pytest.raises(FssbenchError, match="1 images have no photograph, first 2009_000001"):
        prepare(PASCAL, to, given=given)


def test_a_class_twice(tmp_path, to):
    files = {**made.fss_files(), "other/abacus/1.jpg": made.jpg(0)}
    paths = made.write(tmp_path / "in", {"fss.zip": made.zip_bytes(files)})
    with pytest.raises(FssbenchError, match=r"abacus/1\.jpg twice"):
        prepare(RECIPES["fss1000"], to, given=list(paths.values()))


def test_a_folder_of_another_source_is_not_changed(given, to):
    (to / "VOC2012" / "JPEGImages").mkdir(parents=True)
    (to / "VOC2012" / "JPEGImages" / "mine.jpg").write_bytes(b"mine")
    with pytest.raises(FssbenchError, match="not made by data prepare"):
        prepare(PASCAL, to, given=given)
    assert list(contents(to)) == ["VOC2012/JPEGImages/mine.jpg"]


def test_no_room(given, to, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 1 << 20)
    with pytest.raises(FssbenchError, match=r"1 MB free, but preparing pascal5i needs"):
        prepare(PASCAL, to, given=given)


def test_the_disk_is_full_on_the_way(given, to, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        if path.name.endswith(".jpg.partial"):
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(FssbenchError, match="cannot write: No space left on device"):
            prepare(PASCAL, to, given=given)
    assert prepare(PASCAL, to, given=given).marker.complete


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(given, to):
    to.mkdir(mode=0o500)
    with pytest.raises(FssbenchError, match="cannot write: Permission denied"):
        prepare(PASCAL, to, given=given)


def test_a_folder_that_cannot_be_made(given, to, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(FssbenchError, match="must name a folder"):
        prepare(PASCAL, tmp_path / "file", given=given)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(FssbenchError, match="cannot write: Permission denied"):
        prepare(PASCAL, to, given=given)


def test_a_damaged_marker(given, to):
    prepare(PASCAL, to, given=given)
    Marker.path(to, "pascal5i").write_text('{"dataset": 3')
    with pytest.raises(FssbenchError, match="is damaged"):
        prepare(PASCAL, to, given=given)


def test_two_processes_do_not_work_in_one_folder(given, to):
    to.mkdir()
    with (
        module.Lock(to / ".prepared-pascal5i.lock"),
        pytest.raises(FssbenchError, match="another process prepares pascal5i here"),
    ):
        prepare(PASCAL, to, given=given)


def test_unknown_names():
    with pytest.raises(FssbenchError, match=r"did you mean 'fss1000'\? known: pascal5i, coco20i"):
        find_recipe("fss-1000")
    assert find_recipe("coco20i", "2017").name == "coco20i-2017"
    assert find_recipe("pascal") is PASCAL


def test_all_three_may_share_a_folder(given, tmp_path, to):
    fss = made.write(tmp_path / "in", {"fss.zip": made.zip_bytes(made.fss_files())})
    prepare(PASCAL, to, given=given)
    prepare(RECIPES["fss1000"], to, given=list(fss.values()))
    assert prepare(PASCAL, to).already
    assert prepare(RECIPES["fss1000"], to).already
    assert not (to / DOWNLOADS).exists()
