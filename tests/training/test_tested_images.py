"""Training images that are tested too: found by content, and such records never rank."""

from __future__ import annotations

import shutil

import attrs
import pytest
from PIL import Image, ImageDraw
from records_for_tests import change_record

from fssbench import Evaluation, dataset, evaluate, train
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.matchers.checkpoint import Checkpoint, read_checkpoint
from fssbench.training.samples import count_tested_images


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


def evaluated(mine, checkpoint, **changes):
    settings = Evaluation(
        protocol="labels/v1", data_root=mine.data_root, data_options=mine.data_options,
        checkpoint=checkpoint, workers=0, device="cpu", out=mine.out,
    )  # fmt: skip
    (done,) = evaluate(attrs.evolve(settings, **changes))
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
    assert (
        "4 images of this training are in split val too and show novel classes of fold 0; records "
        "of its checkpoints on these images never rank; "
        'train_filter = "base-only" in the recipe leaves them out'
    ) in caplog.text
    done = evaluated(mine, checkpoint)
    assert done.record.tested_images == 4
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
    change_record(done.folder, "tested_images", value=0)
    (problem,) = verify_record(done.folder, rerun).problems
    assert problem == "tested_images is 0, the checkpoint's 4"


def test_without_images_of_novel_classes_it_ranks(mine, tmp_path, caplog):
    checkpoint = train(with_filter(tmp_path, mine, "base-only")).last
    assert len(read_checkpoint(checkpoint).trained_images) == 4
    record = evaluated(mine, checkpoint).record
    assert (record.tested_images, record.rankable) == (0, "")
    assert "tested" not in caplog.text


def test_images_of_the_initial_checkpoint_count(mine, tmp_path):
    first = train(with_filter(tmp_path, mine, "keep")).last
    again = train(attrs.evolve(with_filter(tmp_path, mine, "base-only"), init=first)).last
    assert len(read_checkpoint(again).trained_images) == 8
    assert evaluated(mine, again).record.tested_images == 4


def test_copies_under_other_names_are_found(mine, tmp_path, root):
    """Another folder, other file names, and another name of the dataset."""
    checkpoint = train(with_filter(tmp_path, mine, "keep")).last
    other = tmp_path / "other"
    shutil.copytree(root, other)
    for folder in ("images", "labels"):
        for path in (other / folder).iterdir():
            path.rename(path.with_name(f"copy-{path.name}"))
    options = {"name": "theirs", "novel": "left"}
    done = evaluated(mine, checkpoint, data_root=other, data_options=options)
    assert (done.record.dataset.name, done.record.tested_images) == ("theirs", 4)


def test_only_images_of_the_manifest_count(mine, tmp_path, root):
    """The list of an evaluation decides, not the list that the training knew."""
    checkpoint = train(with_filter(tmp_path, mine, "keep")).last
    (root / "some.txt").write_text("00\n03\n06\n09\n02\n")
    options = {**mine.data_options, "val": "some.txt"}
    record = evaluated(mine, checkpoint, data_options=options).record
    assert record.tested_images == 1
    (root / "some.txt").write_text("00\n03\n06\n09\n")
    assert evaluated(mine, checkpoint, data_options=options).record.tested_images == 0


def test_checkpoints_without_hashes_are_unknown(mine, tmp_path, monkeypatch):
    checkpoint = train(with_filter(tmp_path, mine, "keep")).last
    known = read_checkpoint(checkpoint)
    assert not [name for name in known.weights if "trained_images" in name]
    older = Checkpoint(path=checkpoint, sha256="", header=known.header, weights=known.weights)
    assert older.trained_images is None
    record = evaluated(mine, checkpoint).record
    assert attrs.evolve(record, tested_images=None).rankable == ""


def test_before_a_training_files_are_compared(mine, root):
    """Folders of splits have other files, and a list without its images is no error."""
    made = dataset("labels", root, **mine.data_options)
    ids = made.image_ids("train")
    assert count_tested_images(made, ids, 0) == 8
    (root / "two.txt").write_text("02\n03\n")
    some = dataset("labels", root, folds=2, val="two.txt")
    assert count_tested_images(some, ids, 0) == 2
    for name in ("images", "labels"):
        for split in ("train", "val"):
            shutil.copytree(root / name, root / f"{name}-{split}")
    options = {"images": "images-{split}", "labels": "labels-{split}", "folds": 2}
    apart = dataset("labels", root, **options)
    assert count_tested_images(apart, apart.image_ids("train"), 0) == 0


def test_coco_and_pascal_share_images_by_the_users_files(shared_data, tmp_path):
    coco = dataset("coco20i", shared_data / "coco_mini")
    ids = coco.image_ids("train")
    novel = set(coco.fold_classes(1))
    assert count_tested_images(coco, ids, 1) == sum(
        bool(novel & {*coco.class_pixels(i)}) for i in ids
    )
    voc = shared_data / "voc_mini"
    official = dataset("pascal5i", voc)
    assert count_tested_images(official, official.image_ids("train"), 0) == 0
    ids = official.image_ids("val")
    (tmp_path / "list.txt").write_text("\n".join(ids))
    both = dataset("pascal5i", voc, train_list=str(tmp_path / "list.txt"))
    assert 0 < count_tested_images(both, both.image_ids("train"), 0) < len(ids)
