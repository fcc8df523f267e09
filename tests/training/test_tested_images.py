"""Training images that are tested too: counted in headers, and their records never rank."""

from __future__ import annotations

import shutil

import attrs
import pytest
from PIL import Image, ImageDraw

from fssbench import Evaluation, dataset, evaluate, train
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.results.record import known_tested_images


@pytest.fixture
def root(tmp_path):
    """Twelve images of two classes, one or both, without folders of splits."""
    made = tmp_path / "mine"
    for name in ("images", "labels"):
        (made / name).mkdir(parents=True)
    (made / "classes.toml").write_text('1 = "left"\n2 = "right"')
    for number in range(12):
        shown = ((1,), (2,), (1, 2))[number % 3]
        image, labels = Image.new("RGB", (64, 64), (9 * number, 0, 0)), Image.new("L", (64, 64))
        for value in shown:
            box = (32 * value - 30, 10, 32 * value - 4, 50)
            ImageDraw.Draw(image).rectangle(box, fill=(0, 90 * value, number))
            ImageDraw.Draw(labels).rectangle(box, fill=value)
        image.save(made / "images" / f"{number:02}.png")
        labels.save(made / "labels" / f"{number:02}.png")
    return made


@pytest.fixture
def mine(job, root, monkeypatch):
    """A training on class `right`; class `left` is novel."""
    monkeypatch.setattr("trainable_for_tests.Meta.base_classes", 1)
    options = {"folds": 2}
    return attrs.evolve(
        job, dataset="labels", data_root=root, data_options=options, steps=2, validation_episodes=0
    )


def evaluated(mine, checkpoint):
    (done,) = evaluate(
        Evaluation(
            protocol="labels/v1", data_root=mine.data_root, data_options=mine.data_options,
            checkpoint=checkpoint, workers=0, device="cpu", out=mine.out,
        )
    )  # fmt: skip
    return done


def with_filter(tmp_path, job, chosen):
    """Write the recipe of a training with another filter."""
    path = tmp_path / f"{chosen}.toml"
    path.write_text(
        f'[{job.stage}.own]\npaper = "none"\nbackbone = "pixels"\ntrain_filter = "{chosen}"\n'
        "steps = 2\nepoch_size = 8\nbatch = 2\nmin_pixels = 1\n"
        'optimiser = { kind = "adamw", lr = 1e-3 }\n'
    )
    return attrs.evolve(job, recipe=str(path))


@pytest.mark.parametrize("chosen", ["keep", "ignore"])
def test_they_are_counted_and_never_rank(mine, tmp_path, caplog, chosen):
    checkpoint = train(with_filter(tmp_path, mine, chosen)).last
    assert read_checkpoint(checkpoint).header["tested_images"] == 4
    assert (
        "4 images of this training show novel classes of fold 0 and are tested too; records of its "
        'checkpoints never rank; train_filter = "base-only" in the recipe leaves them out'
    ) in caplog.text
    done = evaluated(mine, checkpoint)
    assert done.record.rankable == "trained on 4 of the tested images"
    assert (
        "--checkpoint last.safetensors: it was trained on 4 of the tested images; such a record "
        "never ranks" in caplog.text
    )
    rerun = Rerun(
        episodes=3, checkpoint=checkpoint, data_root=mine.data_root,
        data_options=mine.data_options, device="cpu",
    )  # fmt: skip
    assert verify_record(done.folder, rerun).problems == ()


def test_without_images_of_novel_classes_it_ranks(mine, tmp_path, caplog):
    checkpoint = train(with_filter(tmp_path, mine, "base-only")).last
    assert "tested_images" not in read_checkpoint(checkpoint).header
    assert evaluated(mine, checkpoint).record.rankable == ""
    assert "tested" not in caplog.text


def test_an_initial_checkpoint_counts(mine, tmp_path, caplog):
    first = train(with_filter(tmp_path, mine, "keep")).last
    again = attrs.evolve(with_filter(tmp_path, mine, "base-only"), init=first)
    caplog.clear()
    assert read_checkpoint(train(again).last).header["tested_images"] == 4
    assert "4 images of this training or of --init show" in caplog.text


def test_folders_of_splits_have_none_in_common(mine, root):
    for name in ("images", "labels"):
        for split in ("train", "val"):
            shutil.copytree(root / name, root / f"{name}-{split}")
    options = {"images": "images-{split}", "labels": "labels-{split}"}
    assert dataset("labels", root, **options).common_images() == frozenset()
    assert len(dataset("labels", root).common_images()) == 12


def test_lists_of_splits_are_compared(root):
    (root / "one.txt").write_text("00\n01\n02\n")
    (root / "two.txt").write_text("02\n03\n")
    lists = {"train": "one.txt", "val": "two.txt"}
    assert dataset("labels", root, **lists).common_images() == {"02"}


def test_another_dataset_is_not_compared():
    header = {"dataset": "mine", "tested_images": 3}
    assert known_tested_images(header, "mine") == 3
    assert known_tested_images(header, "other") == 0
    assert known_tested_images({"dataset": "mine", "tested_images": "many"}, "mine") == 0
    assert known_tested_images({}, "mine") == 0


def test_coco_and_pascal_share_images_by_the_users_files(shared_data, tmp_path):
    coco = dataset("coco20i", shared_data / "coco_mini")
    assert len(coco.common_images()) == 300
    voc = shared_data / "voc_mini"
    assert dataset("pascal5i", voc).common_images() == frozenset()
    ids = dataset("pascal5i", voc).image_ids("val")[:5]
    (tmp_path / "list.txt").write_text("\n".join(ids))
    options = {"train_list": str(tmp_path / "list.txt")}
    assert dataset("pascal5i", voc, **options).common_images() == {*ids}
    own = tmp_path / "VOC2012"
    for name in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (own / name).mkdir(parents=True)
    assert dataset("pascal5i", tmp_path, **options).common_images() == frozenset()  # no val.txt
