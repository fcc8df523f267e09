"""Checkpoints of one dataset that are tested on another: what is named, and what never ranks."""

from __future__ import annotations

import json

import attrs
import pytest
from PIL import Image
from records_for_tests import change_record

from fssbench import Evaluation, FssbenchError, Training, build, dataset, evaluate, train
from fssbench.board.labels import Labels
from fssbench.cli import _run
from fssbench.data.coco import Coco
from fssbench.data.folder import Folder
from fssbench.data.pascal import CLASSES
from fssbench.data.shapes.silhouettes import SILHOUETTES
from fssbench.evaluation.evaluate import prepare
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.model import trained_classes
from fssbench.results.method import method_id
from fssbench.testing.synthetic import picture


@pytest.fixture
def short(job):
    return attrs.evolve(job, steps=2, fold=0, validation_episodes=0)


@pytest.fixture
def photos(tmp_path):
    """Four classes of three pictures; the name of one is that of a base class of fold 0."""
    for number, name in enumerate(("Hour_Glass", "gears", "spoon", "star")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for index in range(3):
            pair = picture(4 * index + number, 48, 48)
            Image.fromarray(pair.image.permute(1, 2, 0).numpy()).save(folder / f"{index}.jpg")
            Image.fromarray(pair.mask.numpy() * 255).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def abroad(photos):
    return Evaluation(
        protocol="folder/v1", data_root=photos, workers=0, device="cpu", out=photos.parent / "runs"
    )


def with_header(path, without=(), **changes):
    """Write a copy of a checkpoint with another header."""
    checkpoint = read_checkpoint(path)
    header = {k: v for k, v in checkpoint.header.items() if k not in without} | changes
    matcher = build.matcher("trainable", "pixels")
    checkpoint.load_into(matcher)
    other = path.with_name(f"other-{len(list(path.parent.iterdir()))}.safetensors")
    write_checkpoint(other, matcher, header)
    return other


def test_a_header_names_the_base_classes(short):
    header = read_checkpoint(train(short).last).header
    assert header["base_classes"] == list(SILHOUETTES)[5:]
    assert (header["dataset"], header["folds_of"], header["fold"]) == ("shapes", "shapes", 0)


def test_tested_classes_of_the_training_are_named(short, abroad, caplog):
    (done,) = evaluate(abroad, checkpoint=train(short).last)
    record = done.record
    assert record.overlap == ("Hour_Glass",)
    assert record.rankable == "trained on tested classes: Hour_Glass"
    assert (record.trained_on, record.trained_fold) == ("shapes", None)
    assert (
        "--checkpoint last.safetensors: it was trained on classes of fold 0 of folder: Hour_Glass; "
        "such a record never ranks; leave them out with -d leave_out=Hour_Glass" in caplog.text
    )
    assert "trained on shapes fold 0" in Labels([record]).method([record])


def test_without_them_it_ranks(short, abroad, caplog):
    options = {"leave_out": "Hour_Glass"}
    (done,) = evaluate(abroad, checkpoint=train(short).last, data_options=options)
    assert done.record.overlap == ()
    assert done.record.rankable == ""
    assert [each.name for each in done.record.per_class] == ["gears", "spoon", "star"]
    assert "trained on classes" not in caplog.text


def test_a_verification_names_the_classes_too(short, abroad):
    checkpoint = train(short).last
    (done,) = evaluate(abroad, checkpoint=checkpoint)
    rerun = Rerun(episodes=3, checkpoint=checkpoint, data_root=abroad.data_root, device="cpu")
    assert verify_record(done.folder, rerun).problems == ()
    change_record(done.folder, "overlap", value=[])
    (problem,) = verify_record(done.folder, rerun).problems
    assert problem == "overlap is [], the checkpoint's ['Hour_Glass']"


def test_other_data_has_other_advice(short, abroad, caplog):
    """Nothing can be left out of `shapes`, and earlier names are repeated for `folder`."""
    foreign = with_header(train(short).last, dataset="mine", folds_of="mine")
    here = attrs.evolve(
        abroad, protocol="shapes/v1-1k", data_root=None, data_options=short.data_options, limit=5
    )
    evaluate(here, checkpoint=foreign, folds=(1,))
    assert "of shapes: gear, hourglass, fish, cross, mushroom; such a record never ranks\n" in (
        caplog.text
    )
    evaluate(abroad, checkpoint=foreign, data_options={"leave_out": "spoon"})
    assert "-d leave_out=Hour_Glass,spoon" in caplog.text


def test_advice_leaves_out_the_classes_of_all_checkpoints(short, abroad, caplog):
    own = read_checkpoint(train(short).last)
    checkpoints = {
        f"--{option} last.safetensors": attrs.evolve(
            own, header={**own.header, "base_classes": [name]}
        )
        for option, name in {"checkpoint": "Hour_Glass", "weights": "spoon"}.items()
    }
    evaluator = prepare(abroad)
    attrs.evolve(evaluator.training, checkpoints=checkpoints).warn(evaluator.manifests())
    for option, name in {"checkpoint": "Hour_Glass", "weights": "spoon"}.items():
        assert f"--{option} last.safetensors: it was trained on classes of fold 0 of" in caplog.text
        assert f": {name}; such a record never ranks; leave them out" in caplog.text
    assert caplog.text.count("-d leave_out=Hour_Glass,spoon\n") == 2


def test_own_data_names_the_other_classes(short, abroad, tmp_path, caplog):
    root = tmp_path / "mine"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    (root / "classes.toml").write_text('1 = "Hour Glass"\n2 = "spoon"\n3 = "pen"')
    for number in range(6):
        Image.new("RGB", (40, 40), (40 * number, 0, 0)).save(root / "images" / f"{number}.png")
        Image.new("L", (40, 40), number % 3 + 1).save(root / "labels" / f"{number}.png")
    mine = attrs.evolve(abroad, protocol="labels/v1", data_root=root)
    checkpoint = train(short).last
    evaluate(mine, checkpoint=checkpoint)
    assert "never ranks; test the others with -d novel=spoon,pen" in caplog.text
    (done,) = evaluate(mine, checkpoint=checkpoint, data_options={"novel": "spoon,pen"})
    assert done.record.rankable == ""


def test_base_classes_of_other_data_are_never_scored(short, abroad):
    foreign = with_header(train(short).last, dataset="mine", folds_of="shapes")
    changes = {"data_root": None, "data_options": short.data_options, "folds": (0,)}
    with pytest.raises(FssbenchError, match="names no fold of shapes, so its base classes are"):
        evaluate(abroad, checkpoint=foreign, protocol="shapes/v1-1k-generalised", **changes)


def test_every_fold_of_a_training_is_a_method_of_its_own(short, abroad):
    """All of them can be tested on the one fold of the other data."""
    records = [
        evaluate(abroad, checkpoint=train(short, fold=fold).last)[0].record for fold in (0, 1)
    ]
    assert [record.overlap for record in records] == [("Hour_Glass",), ("star",)]
    assert len({method_id(record) for record in records}) == 2
    assert [Labels(records).method([r]) for r in records] == [
        f"trainable (trained on shapes fold {fold}, last.safetensors)" for fold in (0, 1)
    ]


def test_older_checkpoints_have_their_classes_through_dataset_and_fold(short, abroad):
    made = train(short).last
    older = with_header(made, without=("base_classes", "folds_of"))
    (done,) = evaluate(abroad, checkpoint=older)
    assert done.record.overlap == ("Hour_Glass",)
    assert trained_classes(read_checkpoint(older).header, dataset("shapes")) == trained_classes(
        read_checkpoint(made).header, dataset("shapes")
    )


@pytest.mark.parametrize(
    "changes",
    [{"dataset": "mine"}, {"fold": None}, {"fold": 9}, {"fold": -1}, {"dataset": "labels"}],
)
def test_unknown_classes_are_no_known_difference(short, abroad, caplog, changes):
    older = with_header(train(short).last, without=("base_classes", "folds_of"), **changes)
    (done,) = evaluate(abroad, checkpoint=older)
    assert done.record.overlap is None
    known = changes.get("dataset", "shapes")
    assert done.record.rankable == f"trained on unknown classes of {known}, maybe on tested ones"
    assert "the classes that it was trained on are unknown" in caplog.text


def test_the_same_fold_has_no_overlap_and_another_one_is_named(short, abroad):
    here = attrs.evolve(
        abroad, protocol="shapes/v1-1k", data_root=None, data_options=short.data_options, limit=20
    )
    made = train(short).last
    (own,) = evaluate(here, checkpoint=made)
    assert (own.record.fold, own.record.overlap, own.record.trained_on) == (0, (), "")
    (other,) = evaluate(here, checkpoint=made, folds=(1,), any_fold=True)
    assert other.record.overlap == tuple(list(SILHOUETTES)[5:10])
    (free,) = evaluate(here, matcher="mixer", backbone="pixels", folds=(1,))
    assert free.record.overlap is None


def test_a_training_names_the_classes_of_its_initial_checkpoint(short, photos):
    first = train(short).last
    pretrained = with_header(first, dataset="mine", folds_of="mine", base_classes=["spoon"])
    again = train(attrs.evolve(short, init=pretrained, out=photos.parent / "second"))
    header = read_checkpoint(again.last).header
    assert header["base_classes"] == ["spoon", *list(SILHOUETTES)[5:]]
    unknown = with_header(first, dataset="mine", folds_of="mine", base_classes=None)
    again = train(attrs.evolve(short, init=unknown, out=photos.parent / "third"))
    assert read_checkpoint(again.last).header["base_classes"] is None
    assert trained_classes(read_checkpoint(again.last).header, dataset("shapes")) is None


def test_authors_checkpoints_by_dataset_and_fold(photos):
    known = trained_classes({"dataset": "coco20i", "fold": 3}, Folder(root=photos))
    assert known == tuple(name for c, name in enumerate(Coco.classes) if c % 4 != 3)
    known = trained_classes({"dataset": "pascal5i", "fold": 1}, Folder(root=photos))
    assert known == CLASSES[:5] + CLASSES[10:]


def test_the_command_line_names_training_and_classes(short, abroad, capsys):
    made = train(short).last
    options = ["--checkpoint", str(made), "--protocol", "folder/v1"]
    options += ["--data-root", str(abroad.data_root), "--workers", "0", "--out", str(abroad.out)]
    plugins = [argument for name in ("methods", "trainable") for argument in
               ("-p", f"{name}_for_tests")]  # fmt: skip
    assert _run(["evaluate", *options, *plugins]) == 0
    said = capsys.readouterr().out
    assert "Trained on another dataset: shapes, fold 0, stage meta, recipe shapes" in said
    assert "never rank on a board: trained on tested classes: Hour_Glass." in said


@pytest.mark.realdata
def test_from_coco_to_the_other_mini_sets(shared_data, tmp_path):
    made = train(
        Training(
            matcher="hsnet", stage="meta", recipe="shapes", dataset="coco20i",
            data_root=shared_data / "coco_mini", fold=0, steps=1, batch_size=2, device="cpu",
            validation_episodes=0, workers=0, out=tmp_path / "trainings",
        )
    ).last  # fmt: skip
    base = Evaluation(checkpoint=made, device="cpu", workers=0, limit=6, out=tmp_path / "runs")
    voc = attrs.evolve(
        base, protocol="pascal5i/v1-1k-coco-folds", data_root=shared_data / "voc_mini"
    )
    (done,) = evaluate(voc)  # the fold of the training
    record = done.record
    assert (record.fold, record.overlap, record.dataset.folds_of) == (0, (), "coco20i")
    assert {CLASSES[c] for c in record.manifest.classes} == {
        "aeroplane", "boat", "chair", "diningtable", "dog", "person",
    }  # fmt: skip
    assert "trained on coco20i, " in Labels([record]).method([record])
    with pytest.raises(
        FssbenchError, match="trained for fold 0, so it has seen the classes of fold 1"
    ):
        evaluate(voc, folds=(1,))
    own = attrs.evolve(voc, protocol="pascal5i/v1-1k")
    assert [each.record.overlap for each in evaluate(own)] == [
        ("bicycle", "bird", "bottle"), ("bus", "car", "cat", "cow"), ("horse", "motorbike"),
        ("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    ]  # fmt: skip
    for protocol, folder, overlap in (
        ("fss1000/v1-mini", "fss_mini", ("apple",)), ("folder/v1", "davis_mini", ()),
    ):  # fmt: skip
        (done,) = evaluate(base, protocol=protocol, data_root=shared_data / folder)
        assert done.record.overlap == overlap
    assert json.loads(record.to_json())["checkpoint"]["header"]["dataset"] == "coco20i"
