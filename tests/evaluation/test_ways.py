"""Episodes of several ways: label maps, rows, scores, and everything that reads them."""

from __future__ import annotations

import gzip
import json
import shutil

import attrs
import methods_for_tests
import numpy as np
import pandas
import pytest
import torch
import ways_for_tests
from PIL import Image
from registered_for_tests import registered

import fssbench
from fssbench import FssbenchError, Manifest, ProtocolSpec
from fssbench.cli import main
from fssbench.data.dataset import IGNORE
from fssbench.data.run_lengths import rle
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.measure import measure_masks
from fssbench.inference.chunk_loader import target_of
from fssbench.inference.label_maps import decided, merged
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.metrics.iou import IoU
from fssbench.results.rows import confusion_columns, read_rows, write_rows
from fssbench.results.verify import problems
from fssbench.statistics.intervals import score_intervals

plugin = registered(methods_for_tests, ways_for_tests)

DATA = ("-d", "images_per_split=120")
TWO = "shapes/v1-1k-2way"


@pytest.fixture
def two(job):
    return attrs.evolve(job, protocol=TWO, limit=40)


def run(*arguments, fails=False):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == (2 if fails else 0)


def rows_of(outcome):
    return (outcome.folder / "rows.csv.gz").read_bytes()


# --- label maps -----------------------------------------------------------------------------------


def test_the_smaller_class_is_in_front_and_ignored_pixels_stay():
    large = torch.tensor([[1, 1, 1, 0, 0]], dtype=torch.uint8)
    small = torch.tensor([[0, 0, 1, 1, 255]], dtype=torch.uint8)
    assert merged([large, small], [4, 9]).tolist() == [[1, 1, 2, 2, IGNORE]]
    assert merged([small, large], [4, 9]).tolist() == [[1 + 1, 2, 1, 1, IGNORE]]
    other = torch.tensor([[1, 1, 0, 0, 0]], dtype=torch.uint8)
    same = torch.tensor([[0, 1, 1, 0, 0]], dtype=torch.uint8)
    assert merged([other, same], [4, 9]).tolist() == [[1, 2, 2, 0, 0]]
    assert merged([same, other], [9, 4]).tolist() == [[2, 1, 1, 0, 0]]


def test_the_largest_logit_above_zero_decides_and_ties_are_background():
    logits = torch.tensor([[[1.0, 2.0, -1.0, 0.0, 3.0]], [[2.0, 1.0, -2.0, -1.0, 3.0]]])
    found = decided(logits)
    assert (found.dtype, found.tolist()) == (torch.uint8, [[2, 1, 0, 0, 0]])
    assert decided(logits[0]).tolist() == [[True, True, False, False, True]]


def test_a_confusion_counted_by_hand():
    target = torch.tensor(
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 2, 2], [0, 255, 2, 255]], dtype=torch.uint8
    )
    prediction = torch.tensor(
        [[1, 1, 1, 0], [2, 0, 0, 0], [0, 0, 2, 1], [2, 2, 0, 1]], dtype=torch.uint8
    )
    found = measure_masks([IoU()], [prediction], [target], 2)
    assert {name: column.tolist() for name, column in found.items()} == {
        "intersection_fg": [2, 1],
        # Way 1: 4 true, and 2 wrongly predicted; way 2: 3 true, and 2 wrongly predicted.
        "union_fg": [6, 5],
        # Background: 7 true pixels, of which 1 is way 1 and 1 way 2; 2 of others predicted.
        "intersection_bg": [5, 5],
        "union_bg": [9, 9],
        "predicted_background": [1, 1],
        "predicted_way1": [2, 1],
        "predicted_way2": [1, 1],
    }
    rows = pandas.DataFrame(
        {"index": 0, "way": [1, 2], "class_id": [3, 5], "query": "q"}
        | {name: column.tolist() for name, column in found.items()}
    )
    scores = IoU().summarise(rows)
    assert scores["miou"] == pytest.approx(50 * (2 / 6 + 1 / 5))
    assert scores["background_iou"] == pytest.approx(100 * 5 / 9)
    assert scores["fb_iou"] == pytest.approx(50 * (3 / 11 + 5 / 9))


# --- manifests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", [2, 5])
def test_manifests_of_several_ways(ways):
    data = fssbench.dataset("shapes", images_per_split=120)
    spec = fssbench.registry.registry().get(ProtocolSpec, f"shapes/v1-1k-{ways}way")
    manifest = fssbench.build_manifest(spec, data, fold=1, shots=3, limit=100)
    assert (manifest.ways, len(manifest.by_way())) == (ways, 100 * ways)
    drawn_first = 0
    for episode in manifest.episodes:
        classes = [target.class_id for target in episode.targets]
        assert len(set(classes)) == ways
        assert set(classes) <= set(data.fold_classes(1))
        present = data.class_pixels(episode.query)
        assert set(classes) & set(present)
        drawn_first += classes[0] in present
        for way in episode.ways():
            assert (way.index, way.query, way.further) == (episode.index, episode.query, ())
            assert len(set(way.support)) == 3
            assert episode.query not in way.support
            assert all(way.class_id in data.class_pixels(image) for image in way.support)
    assert 20 < drawn_first < 100  # the order of the ways is drawn
    again = fssbench.build_manifest(spec, data, fold=1, shots=3, limit=100)
    assert again.digest == manifest.digest


def test_a_manifest_of_several_ways_is_written_and_read(tmp_path):
    spec = fssbench.registry.registry().get(ProtocolSpec, TWO)
    data = fssbench.dataset("shapes", images_per_split=120)
    manifest = fssbench.build_manifest(spec, data, fold=0, shots=1, limit=3)
    manifest.write(tmp_path / "m.jsonl")
    assert Manifest.read(tmp_path / "m.jsonl") == manifest
    line = json.loads((tmp_path / "m.jsonl").read_text().splitlines()[1])
    assert set(line) == {"class_id", "further", "query", "support"}
    first = manifest.episodes[0]
    lone = attrs.evolve(manifest, episodes=(*manifest.episodes[:2], first.ways()[0]))
    lone.write(tmp_path / "lone.jsonl")
    with pytest.raises(FssbenchError, match="episode 2 has 1 ways, the first 2"):
        Manifest.read(tmp_path / "lone.jsonl")
    bare = attrs.evolve(first, support=())
    attrs.evolve(manifest, episodes=(bare, *manifest.episodes[1:])).write(tmp_path / "bare.jsonl")
    with pytest.raises(FssbenchError, match="episode 0 has 0 supports of 0 classes"):
        Manifest.read(tmp_path / "bare.jsonl")


def test_too_few_classes_and_a_sampler_of_one_way_are_one_line(plugin):
    data = fssbench.dataset("shapes", images_per_split=120)
    spec = fssbench.registry.registry().get(ProtocolSpec, TWO)
    with pytest.raises(FssbenchError, match="6 ways need 6 novel classes .* there are 5"):
        fssbench.build_manifest(attrs.evolve(spec, ways=6), data, fold=0, shots=1)
    with pytest.raises(FssbenchError, match="has 2 ways, .* its sampler class-balanced drew"):
        fssbench.build_manifest(attrs.evolve(spec, sampler="class-balanced"), data, fold=0, shots=1)


# --- evaluation -----------------------------------------------------------------------------------


def test_every_way_has_a_row(two):
    (outcome,) = evaluate(two)
    rows, record = read_rows(outcome.folder / "rows.csv.gz"), outcome.record
    manifest = Manifest.read(outcome.folder / "manifest.jsonl.gz")
    assert list(rows.columns) == [
        "index", "way", "class_id", "query", *IoU.columns, *confusion_columns(2),
    ]  # fmt: skip
    assert list(rows["index"]) == [n for n in range(40) for _ in range(2)]
    assert list(rows["way"]) == [1, 2] * 40
    assert list(rows["class_id"]) == [way.class_id for way in manifest.by_way()]
    assert (record.ways, record.manifest.episodes) == (2, 40)
    assert set(record.scores) == {"miou", "fb_iou", "episode_miou", "background_iou"}
    assert set(record.intervals) == set(record.scores)
    assert sum(each.episodes for each in record.per_class) == 80
    assert problems(outcome.folder) == []
    # Equal to segmenting each way by itself, and taking the largest logit.
    pipeline = fssbench.Predictor("mixer", "pixels").pipeline
    data = fssbench.dataset("shapes", images_per_split=120)
    for episode in manifest.episodes[:5]:
        geometry = pipeline.geometry
        query = pipeline.encode(geometry.image(data.image(episode.query))[None])
        planes = []
        for way in episode.ways():
            images = torch.stack([geometry.image(data.image(i)) for i in way.support])
            masks = torch.stack([geometry.mask(data.mask(*key)) for key in way.supports()])
            logits = pipeline.logits_of(query, pipeline.support_of(pipeline.encode(images), masks))
            planes.append(geometry.restore(logits[0], 160, 160))
        both = torch.stack([torch.zeros(160, 160), *planes]).argmax(0).to(torch.uint8)
        target = target_of(episode, data, None, "original", "ignore")
        for name, values in measure_masks([IoU()], [both], [target], 2).items():
            own = rows[rows["index"] == episode.index][name]
            assert own.tolist() == values.tolist(), name


def test_a_shared_query_is_encoded_and_prepared_once(two, monkeypatch):
    calls = {"query": 0, "segment": 0}
    prepare, segment = fssbench.Matcher.prepare_query, methods_for_tests.Mixer.segment

    def prepared(self, features):
        calls["query"] += 1
        return prepare(self, features)

    def segmented(self, query, support):
        calls["segment"] += 1
        return segment(self, query, support)

    monkeypatch.setattr(fssbench.Matcher, "prepare_query", prepared)
    monkeypatch.setattr(methods_for_tests.Mixer, "segment", segmented)
    (outcome,) = evaluate(two)
    manifest = Manifest.read(outcome.folder / "manifest.jsonl.gz")
    queries = len({episode.query for episode in manifest.episodes})
    # And once each for the operations of an episode in the record.
    assert calls == {"query": queries + 1, "segment": 2 * 40 + 2}


def test_rows_depend_on_nothing_else(two, tmp_path):
    (one,) = evaluate(two)
    for change in ({"devices": 2}, {"batch_size": 3}, {"cache_memory": 0}):
        (other,) = evaluate(attrs.evolve(two, out=tmp_path / str(change), **change))
        assert rows_of(other) == rows_of(one), change


def test_an_interrupted_run_resumes(two, tmp_path, monkeypatch):
    badly = attrs.evolve(two, matcher="badly", options={"after": "50"}, save_predictions=True)
    with pytest.raises(FssbenchError, match=r"episode \d+ \(classes \d, \d, query val-\d+\): "):
        evaluate(badly)
    assert len(list(badly.out.rglob("journal.jsonl"))) == 1
    monkeypatch.setattr(methods_for_tests.Badly, "segment", methods_for_tests.Mixer.segment)
    (resumed,) = evaluate(badly)
    (straight,) = evaluate(attrs.evolve(two, out=tmp_path / "straight", save_predictions=True))
    assert rows_of(resumed) == rows_of(straight)
    assert resumed.record.predictions == straight.record.predictions


def test_a_constant_prediction_scores_what_arithmetic_says(two):
    (outcome,) = evaluate(attrs.evolve(two, matcher="constant"))
    manifest = Manifest.read(outcome.folder / "manifest.jsonl.gz")
    data = fssbench.dataset("shapes", images_per_split=120)
    inter, union = dict.fromkeys(manifest.class_ids, 0), dict.fromkeys(manifest.class_ids, 0)
    for episode in manifest.episodes:
        target = target_of(episode, data, None, "original", "ignore")
        first, second = (way.class_id for way in episode.targets)
        union[first] += int((target == 1).sum())
        inter[second] += int((target == 2).sum())
        union[second] += target.numel()
    expected = 100 * np.mean([inter[c] / union[c] for c in inter])
    assert outcome.record.scores["miou"] == pytest.approx(expected)
    assert outcome.record.scores["background_iou"] == 0


def test_steps_at_test_time_do_not_reach_the_next_way(two):
    (stepper,) = evaluate(attrs.evolve(two, matcher="stepper"))
    (shifted,) = evaluate(attrs.evolve(two, matcher="shifted"))
    assert rows_of(stepper) == rows_of(shifted)


def test_an_image_matcher_segments_its_ways(two):
    (one,) = evaluate(attrs.evolve(two, matcher="darkest", backbone="", limit=10))
    (other,) = evaluate(attrs.evolve(two, matcher="darkest-at-once", backbone="", limit=10))
    assert rows_of(one) == rows_of(other)
    assert one.record.scores["miou"] > 0


# --- files and commands ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    (found,) = fssbench.evaluate(
        protocol=TWO, data_options={"images_per_split": 120}, folds=(0,), limit=12, workers=0,
        save_predictions=True, out=tmp_path_factory.mktemp("runs"),
    )  # fmt: skip
    return found


def test_perfect_masks_score_100_and_saved_ones_give_their_rows(saved, tmp_path, capsys):
    manifest = Manifest.read(saved.folder / "manifest.jsonl.gz")
    data = fssbench.dataset("shapes", images_per_split=120)
    (tmp_path / "masks").mkdir()
    for episode in manifest.episodes:
        target = target_of(episode, data, None, "original", "ignore").numpy()
        Image.fromarray(target).save(tmp_path / "masks" / f"{episode.index}.png")
    options = (*DATA, "--name", "outside")
    run("record", "import", saved.folder, *options, "--masks", tmp_path / "masks",
        "--out", tmp_path / "perfect")  # fmt: skip
    scores = fssbench.Record.read(tmp_path / "perfect" / "record.json").scores
    assert set(scores.values()) == {100.0}
    run("record", "import", saved.folder, *options, "--masks",
        saved.folder / "predictions.jsonl.gz", "--out", tmp_path / "own")  # fmt: skip
    assert (tmp_path / "own" / "rows.csv.gz").read_bytes() == rows_of(saved)
    Image.new("L", (160, 160), 3).save(tmp_path / "masks" / "0.png")
    run("record", "import", saved.folder, *options, "--masks", tmp_path / "masks",
        "--out", tmp_path / "wrong", fails=True)  # fmt: skip
    assert "0.png: has the values 3; 2 ways have labels 0 to 2" in capsys.readouterr().err


def test_commands_on_a_run_of_several_ways(saved, tmp_path, capsys):
    run("score", saved.folder, *DATA, "--metric", "boundary,iou")
    run("board", "verify", saved.folder, *DATA, "--device", "cpu")
    run("episodes", "show", saved.folder / "manifest.jsonl.gz")
    shown = capsys.readouterr().out
    assert "2-way, 1-shot" in shown
    first = Manifest.read(saved.folder / "manifest.jsonl.gz").episodes[0]
    assert f"supports {first.support[0]} | {first.further[0].support[0]}" in shown
    run("episodes", "stats", saved.folder, "--run", saved.folder, *DATA)
    run("episodes", "stats", saved.folder, "--mask-free", *DATA, fails=True)
    assert "--mask-free is for episodes of one way; " in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["episodes", "diff", f"{TWO}/fold0-1shot", f"{TWO}/fold0-1shot-seed1", *DATA])
    assert ended.value.code == 1
    run("episodes", "export", saved.folder, *DATA, "--out", tmp_path / "exported")
    exported = json.loads((tmp_path / "exported" / "episodes.json").read_text())["episodes"][0]
    assert [each["class_id"] for each in exported["targets"]] == [
        target.class_id for target in first.targets
    ]
    run("evaluate", "prototype", "--protocol", TWO, *DATA, "--fold", "0", "--limit", "12",
        "--workers", "0", "--estimate")  # fmt: skip


def test_panels_show_each_way(two):
    run("evaluate", "prototype", "--protocol", TWO, *DATA, "--fold", "0", "--limit", "4",
        "--workers", "0", "--panels", "1", "--out", two.out)  # fmt: skip
    (panel,) = two.out.rglob("panels/*.png")
    with Image.open(panel) as picture:
        assert picture.width > 4 * 240  # two supports, query, truth, prediction


def test_a_wrong_confusion_is_found(saved, tmp_path):
    rows = read_rows(saved.folder / "rows.csv.gz")
    manifest = Manifest.read(saved.folder / "manifest.jsonl.gz")
    from fssbench.results.verify import rows_problem

    assert rows_problem(rows, manifest) == ""
    assert "lack the column predicted_way2" in rows_problem(
        rows.drop(columns="predicted_way2"), manifest
    )
    changed = rows.assign(predicted_way1=rows["predicted_way1"] + 1)
    assert "predicted_way1 is not intersection_fg" in rows_problem(changed, manifest)
    assert "has 2 ways" in rows_problem(rows.drop(columns="way"), manifest)


# --- base classes ---------------------------------------------------------------------------------

GENERALISED = "shapes/v1-1k-generalised"


def test_a_manifest_with_base_classes(tmp_path):
    spec = fssbench.registry.registry().get(ProtocolSpec, GENERALISED)
    data = fssbench.dataset("shapes", images_per_split=120)
    manifest = fssbench.build_manifest(spec, data, fold=1, shots=2, limit=60)
    novel = data.fold_classes(1)
    base = [c for c in range(20) if c not in novel]
    asked = 0
    for episode in manifest.episodes:
        classes = [target.class_id for target in episode.targets]
        assert sorted(classes[:5]) == list(novel)
        assert classes[5:] == base
        assert {len(target.support) for target in episode.targets[:5]} == {2}
        assert not any(target.support for target in episode.targets[5:])
        asked += bool(set(novel) & set(data.class_pixels(episode.query)))
    assert 10 < asked < 60  # queries are drawn for base classes too
    assert manifest.class_ids == tuple(range(20))
    manifest.write(tmp_path / "m.jsonl.gz")
    assert Manifest.read(tmp_path / "m.jsonl.gz") == manifest


def test_base_classes_are_scored(job, tmp_path):
    settings = attrs.evolve(
        job, protocol=GENERALISED, matcher="first-base", limit=24, save_predictions=True
    )
    (outcome,) = evaluate(settings)
    record, rows = outcome.record, read_rows(outcome.folder / "rows.csv.gz")
    manifest = Manifest.read(outcome.folder / "manifest.jsonl.gz")
    data = fssbench.dataset("shapes", images_per_split=120)
    assert problems(outcome.folder) == []
    assert list(rows["novel"]) == [1] * 5 + [0] * 15 + list(rows["novel"][20:])
    assert (record.ways, len(rows)) == (20, 480)
    inter = union = 0
    for episode in manifest.episodes:
        target = target_of(episode, data, None, "original", "ignore") == 6  # way 6 is class 5
        inter += int(target.sum())
        union += target.numel()
    ious = {each.class_id: each.iou for each in record.per_class}
    assert ious[5] == pytest.approx(100 * inter / union)
    assert {ious[c] for c in range(20) if c != 5} == {0}
    assert record.scores["base_miou"] == pytest.approx(ious[5] / 15)
    assert (record.scores["novel_miou"], record.scores["harmonic_mean"]) == (0, 0)
    assert set(record.intervals) == set(record.scores)
    (other,) = evaluate(attrs.evolve(settings, devices=2, out=tmp_path / "2"))
    assert rows_of(other) == rows_of(outcome)
    run("board", "verify", outcome.folder, *DATA, "-p", ways_for_tests.__file__,
        "-p", methods_for_tests.__file__)  # fmt: skip
    (tmp_path / "masks").mkdir()
    for episode in manifest.episodes:
        labels = target_of(episode, data, None, "original", "ignore").numpy()
        Image.fromarray(labels).save(tmp_path / "masks" / f"{episode.index}.png")
    run("record", "import", outcome.folder, *DATA, "--name", "outside", "--masks",
        tmp_path / "masks", "--out", tmp_path / "perfect")  # fmt: skip
    scores = fssbench.Record.read(tmp_path / "perfect" / "record.json").scores
    assert set(scores.values()) == {100.0}


def test_the_harmonic_mean_and_its_interval():
    rows = pandas.DataFrame(
        {
            "index": [0, 0, 1, 1], "way": [1, 2, 1, 2], "novel": [1, 0, 1, 0],
            "class_id": [3, 5, 3, 5], "query": ["a", "a", "b", "b"],
            "intersection_fg": [1, 3, 1, 3], "union_fg": [4, 4, 4, 4],
            "intersection_bg": [5, 5, 5, 5], "union_bg": [10, 10, 10, 10],
        }
    )  # fmt: skip
    scores = IoU().summarise(rows)
    assert (scores["base_miou"], scores["novel_miou"]) == (75, 25)
    assert scores["harmonic_mean"] == pytest.approx(2 * 75 * 25 / 100)
    for name, (low, high) in score_intervals([rows]).items():
        assert low == pytest.approx(scores[name])
        assert high == pytest.approx(scores[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "scores base classes too, and matcher mixer segments only the classes of its"),
        ({"matcher": "darkest", "backbone": ""}, "matcher darkest segments only the classes"),
    ],
)
def test_methods_without_base_classes_are_refused(job, change, message):
    with pytest.raises(FssbenchError, match=message):
        evaluate(attrs.evolve(job, protocol=GENERALISED, **change))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"dataset": "pascal5i", "fold": 0}, "its header names no fold of shapes, so its base"),
        ({"dataset": "shapes"}, "its header names no fold of shapes, so its base"),
        ({"dataset": "shapes", "fold": 1}, "evaluate --fold 1$"),
    ],
)
def test_checkpoints_of_other_base_classes_are_refused(job, tmp_path, header, message):
    model = fssbench.matcher("first-base", fssbench.backbone("pixels"))
    known = {"matcher": "first-base", "backbone": "pixels", "config": {"width": 4}, **header}
    write_checkpoint(tmp_path / "c.safetensors", model, known)
    settings = attrs.evolve(
        job, protocol=GENERALISED, matcher="first-base", checkpoint=tmp_path / "c.safetensors"
    )
    with pytest.raises(FssbenchError, match=message):
        evaluate(attrs.evolve(settings, any_fold=True))


def test_hdmnet_gives_its_base_classes(job):
    options = {"grid": "8", "ensemble": "true"}
    settings = attrs.evolve(
        job, protocol=GENERALISED, matcher="hdmnet", backbone="tiny-resnet", options=options,
        limit=2,
    )  # fmt: skip
    (outcome,) = evaluate(settings)
    assert {"base_miou", "novel_miou", "harmonic_mean"} < set(outcome.record.scores)
    with pytest.raises(FssbenchError, match="only with -o ensemble=true"):
        evaluate(attrs.evolve(settings, options={**options, "ensemble": "false"}))
    with pytest.raises(FssbenchError, match=r"base_logits gave .*\(1, 14, .*15, h, w"):
        evaluate(attrs.evolve(settings, options={**options, "base_classes": "14"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted_background": 5000}, "the confusion counts of an episode do not fit"),
        ({"intersection_bg": -1}, "the counts of background differ between the rows"),
    ],
)
def test_counts_that_contradict_each_other_are_found(saved, tmp_path, change, message):
    shutil.copytree(saved.folder, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "rows.csv.gz")
    for name, more in change.items():
        rows.loc[0, name] += more
    write_rows(rows, tmp_path / "run" / "rows.csv.gz")
    (problem,) = problems(tmp_path / "run")
    assert message in problem


@pytest.mark.parametrize("protocol", ["shapes/v1-1k", TWO])
def test_uncompressed_run_lengths_are_imported(tmp_path, protocol):
    (run_,) = fssbench.evaluate(
        protocol=protocol, data_options={"images_per_split": 120}, folds=(0,), limit=3, workers=0,
        save_predictions=True, out=tmp_path / "runs",
    )  # fmt: skip
    content = gzip.decompress((run_.folder / "predictions.jsonl.gz").read_bytes())
    _, *lines = map(json.loads, content.splitlines())

    def expanded(line, counts):
        pixels = rle.decode({"size": line["size"], "counts": counts.encode()}).flatten("F")
        borders = np.flatnonzero(np.diff(pixels, prepend=0)).tolist()
        return np.diff([0, *borders, pixels.size]).tolist()

    for line in lines:
        counts = line["counts"]
        each = counts if isinstance(counts, list) else [counts]
        found = [expanded(line, one) for one in each]
        line["counts"] = found if isinstance(counts, list) else found[0]
    (tmp_path / "masks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run("record", "import", run_.folder, *DATA, "--name", "outside", "--masks",
        tmp_path / "masks.jsonl", "--out", tmp_path / "own")  # fmt: skip
    for name in ("rows.csv.gz", "predictions.jsonl.gz"):
        assert (tmp_path / "own" / name).read_bytes() == (run_.folder / name).read_bytes()


# --- methods --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matcher", "backbone", "options"),
    [
        ("prototype", "tiny-resnet", {}),
        ("dcama", "tiny-resnet", {"pixels": "8"}),
        ("hdmnet", "tiny-resnet", {"grid": "8"}),
        ("hsnet", "tiny-resnet", {}),
        ("fsdino", "tiny-vit", {}),
        ("uinofss", "tiny-vit", {"channels": "8"}),
        ("uinofss-comp", "tiny-vit", {}),
    ],
)
def test_methods_of_one_way_run_on_several(tmp_path, matcher, backbone, options):
    """The first rows are those of the arg-max over the method's own logits of each way."""
    torch.manual_seed(0)
    (outcome,) = fssbench.evaluate(
        matcher=matcher, backbone=backbone, weights="random", options=options, protocol=TWO,
        data_options={"images_per_split": 120}, folds=(0,), limit=3, workers=0,
        save_predictions=True, out=tmp_path,
    )  # fmt: skip
    rows = read_rows(outcome.folder / "rows.csv.gz")
    assert len(rows) == 6
    assert problems(outcome.folder, intervals=False) == []
