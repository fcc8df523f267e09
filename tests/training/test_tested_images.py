"""Training images that are tested too: found by content, and such records never rank."""

from __future__ import annotations

import shutil

import attrs
import pytest
import torch
from PIL import Image, ImageDraw
from records_for_tests import change_record

from fssbench import Evaluation, FssbenchError, dataset, evaluate, train
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.training.samples import warn_of_tested_images


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
    done = evaluate(attrs.evolve(settings, **changes))
    return done[0] if len(done) == 1 else done


def without_hashes(checkpoint, path, hashes=None):
    """Write a checkpoint as older versions did, or with other hashes."""
    known = read_checkpoint(checkpoint)

    class Holder:
        def state_dict(self):
            return dict(known.weights)

    write_checkpoint(path, Holder(), known.header, trained_images=hashes)
    return path


def with_filter(tmp_path, job, chosen, backbone="pixels"):
    """Write the recipe of a training with another filter."""
    path = tmp_path / f"{chosen}.toml"
    path.write_text(
        f'[{job.stage}.own]\npaper = "none"\nbackbone = "{backbone}"\ntrain_filter = "{chosen}"\n'
        "steps = 2\nepoch_size = 8\nbatch = 2\nmin_pixels = 1\n"
        'optimiser = { kind = "adamw", lr = 1e-3 }\n'
    )
    return attrs.evolve(job, recipe=str(path))


@pytest.mark.parametrize("chosen", ["keep", "ignore"])
def test_they_are_counted_and_never_rank(mine, tmp_path, caplog, chosen):
    checkpoint = train(with_filter(tmp_path, mine, chosen)).last
    assert (
        "4 images of this training are in split val too and show novel classes of fold 0; records "
        "that test these images never rank; "
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


def test_checkpoints_without_hashes_are_unknown(mine, tmp_path):
    last = train(with_filter(tmp_path, mine, "keep")).last
    record = evaluated(mine, without_hashes(last, tmp_path / "older.safetensors")).record
    assert (record.tested_images, record.rankable) == (None, "")


def test_images_of_an_initial_checkpoint_without_hashes_are_unknown(mine, tmp_path):
    last = train(with_filter(tmp_path, mine, "keep")).last
    older = without_hashes(last, tmp_path / "older.safetensors")
    for chosen, counted in (("base-only", None), ("keep", 4)):
        again = train(attrs.evolve(with_filter(tmp_path, mine, chosen), init=older)).last
        assert read_checkpoint(again).header["unknown_images"] is True
        assert evaluated(mine, again).record.tested_images == counted


def test_an_initial_checkpoint_of_another_dataset_counts(mine, tmp_path):
    abroad = attrs.evolve(mine, data_options={**mine.data_options, "name": "theirs"})
    first = train(with_filter(tmp_path, abroad, "keep")).last
    again = train(attrs.evolve(with_filter(tmp_path, mine, "base-only"), init=first)).last
    assert evaluated(mine, again).record.tested_images == 4


def test_a_trained_encoder_counts(mine, tmp_path, caplog):
    """Its checkpoint is given as the weights of an evaluation, and of another training."""
    tuned = attrs.evolve(mine, stage="tuned")
    encoder = train(with_filter(tmp_path, tuned, "keep", "tints")).last
    caplog.clear()
    given = {"matcher": "prototype", "backbone": "tints", "weights": str(encoder), "folds": (0, 1)}
    done = evaluated(mine, None, **given)
    assert [(each.record.tested_images, each.record.overlap) for each in done] == [
        (4, ()), (8, ("right",))
    ]  # fmt: skip
    assert "--weights last.safetensors: it was trained on 8 of the tested images" in caplog.text
    own = attrs.evolve(with_filter(tmp_path, mine, "base-only", "tints"), weights=str(encoder))
    last = train(own).last
    caplog.clear()
    assert evaluated(mine, last, weights=str(encoder)).record.tested_images == 4
    for option in ("--checkpoint", "--weights"):  # the matcher's hashes hold its encoder's
        assert f"{option} last.safetensors: it was trained on 4 of the tested" in caplog.text


@pytest.mark.parametrize("hashes", [torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64)])
def test_malformed_hashes_are_one_clear_line(mine, tmp_path, hashes):
    last = train(with_filter(tmp_path, mine, "keep")).last
    path = without_hashes(last, tmp_path / "odd.safetensors", hashes)
    with pytest.raises(FssbenchError, match="odd.safetensors: this is no checkpoint of fssbench"):
        read_checkpoint(path)


def warnings_of(made, caplog, fold=0):
    caplog.clear()
    warn_of_tested_images(made, made.image_ids("train"), fold)
    return caplog.text


def test_before_a_training_files_are_compared(root, caplog):
    """Folders of splits have other files, lists of splits may have some in common."""
    made = dataset("labels", root, folds=2)
    assert "8 images of this training are in split val too" in warnings_of(made, caplog)
    (root / "two.txt").write_text("02\n03\n")
    some = dataset("labels", root, folds=2, val="two.txt")
    assert "2 images of this training" in warnings_of(some, caplog)
    for name in ("images", "labels"):
        for split in ("train", "val"):
            shutil.copytree(root / name, root / f"{name}-{split}")
    options = {"images": "images-{split}", "labels": "labels-{split}", "folds": 2}
    assert warnings_of(dataset("labels", root, **options), caplog) == ""


def test_a_training_needs_no_test_split(root, monkeypatch, caplog):
    made = dataset("labels", root, folds=2)
    ids = made.image_ids("train")

    def fail(split):
        raise FileNotFoundError(split)

    monkeypatch.setattr(made, "image_ids", fail)
    warn_of_tested_images(made, ids, 0)
    assert "images of this training" not in caplog.text


def test_coco_and_pascal_share_images_by_the_users_files(shared_data, tmp_path, caplog):
    coco = dataset("coco20i", shared_data / "coco_mini")
    novel = set(coco.fold_classes(1))
    count = sum(not novel.isdisjoint(coco.class_pixels(i)) for i in coco.image_ids("train"))
    assert f"{count} images of this training" in warnings_of(coco, caplog, fold=1)
    voc = shared_data / "voc_mini"
    official = dataset("pascal5i", voc)
    assert warnings_of(official, caplog) == ""
    (tmp_path / "list.txt").write_text("\n".join(official.image_ids("val")))
    both = dataset("pascal5i", voc, train_list=str(tmp_path / "list.txt"))
    assert "show novel classes of fold 0" in warnings_of(both, caplog)
