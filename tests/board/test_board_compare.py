"""`fssbench board compare`: comparable records, and the output."""

import importlib.util
import json
import shutil
import xml.etree.ElementTree
from pathlib import Path

import attrs
import pytest

from fssbench.board.compare import Choice, compare_paths
from fssbench.results.record import Record
from fssbench.results.rows import read_rows
from fssbench.statistics.compare import compare

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)


@pytest.fixture
def sides(runs_below, tmp_path):
    """Two folders for runs, one for each method."""
    return runs_below(tmp_path / "one"), runs_below(tmp_path / "two")


@pytest.fixture
def pair(sides) -> tuple[Path, Path]:
    """Two methods on four folds; the second is better."""
    sides[0].folds("worse", quality=0.4)
    sides[1].folds("better", quality=0.6, luck=1)
    return sides[0].root, sides[1].root


@pytest.fixture
def command(run):
    """A function that runs ``board compare``: (exit code, stdout, stderr)."""
    return lambda *arguments: run("board", "compare", *arguments)


def refusal(command, *arguments: object) -> str:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("fssbench: error: ")
    assert err.count("\n") == 1
    return err


def change(folder: Path, **fields: object) -> None:
    attrs.evolve(Record.read(folder / "record.json"), **fields).write(folder)


def test_the_folds_of_two_methods(pair, command):
    code, out, err = command(*pair)
    assert (code, err) == (0, "")
    assert "A: worse on resnet50\nB: better on resnet50\n" in out
    assert "pascal5i/v1-1k, 1-shot, folds 0, 1, 2, 3" in out
    found = compare_paths(*pair)
    assert found.folds == (0, 1, 2, 3)
    value = found.comparison.scores["miou"]
    line = next(line for line in out.splitlines() if line.startswith(" mIoU   "))
    assert line.split() == [
        "mIoU",
        f"{value.a:.2f}",
        f"{value.b:.2f}",
        f"{value.difference:+.2f}",
        f"{value.low:+.2f}",
        "to",
        f"{value.high:+.2f}",
        "<0.001",
    ]
    for name in ("FB-IoU", "episode mIoU", "class 0", "class 10"):
        assert f"\n {name}  " in out
    counts = found.comparison
    assert counts.wins + counts.ties + counts.losses == 4 * 24
    assert f"B is better in {counts.wins}, equal in {counts.ties}, worse in {counts.losses}" in out
    assert "below about 30, intervals are too narrow" in out


def test_it_is_the_comparison_of_the_rows(pair):
    tables = [[read_rows(side / f"run-{k}" / "rows.csv.gz") for k in range(4)] for side in pair]
    assert compare_paths(*pair).comparison == compare(list(zip(*tables, strict=True)))


@pytest.mark.parametrize("form", ["run-2", "run-2/record.json"])
def test_a_record_is_a_file_or_its_folder(pair, form):
    found = compare_paths(*(side / form for side in pair))
    assert found.folds == (2,)
    assert found.comparison == compare_paths(*pair, Choice(folds=(2,))).comparison
    assert found.class_name(2, 6) == "class 6"


def test_json(pair, command):
    code, out, _ = command(*pair, "--json")
    told = json.loads(out)
    assert code == 0
    found = compare_paths(*pair)
    assert told["scores"]["miou"] == attrs.asdict(found.comparison.scores["miou"])
    assert told["folds"]["3"]["fb_iou"] == attrs.asdict(found.comparison.folds[3]["fb_iou"])
    assert told["a"]["label"] == "worse on resnet50"
    assert told["b"]["records"]["1"] == str(pair[1] / "run-1")
    assert told["digests"]["0"] == found.record.manifest.digest
    assert len(told["classes"]) == 8
    last = told["classes"][-1]
    assert (last["fold"], last["class_id"], last["name"]) == (3, 10, "class 10")
    assert sum(told["episodes"].values()) == 96


def test_methods_are_distinguished_by_their_options(sides):
    sides[0].add(config={"temperature": 10.0})
    sides[1].add(config={"temperature": 20.0}, luck=1)
    assert compare_paths(sides[0].root, sides[1].root).labels == (
        "prototype (temperature=10.0) on resnet50",
        "prototype (temperature=20.0) on resnet50",
    )


def test_text_of_a_record_is_no_markup(sides, command):
    for side, note in zip(sides, ("[bold red]x[/wrong] $\\frac$", "plain"), strict=True):
        side.add(config={"note": note})
    code, out, _ = command(*(side.root for side in sides))
    assert code == 0
    assert "prototype (note=[bold red]x[/wrong] $\\frac$) on resnet50" in out


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"protocol": "pascal5i/hsnet-1k"}, "protocol (pascal5i/v1-1k and pascal5i/hsnet-1k)"),
        ({"shots": 5}, "shots (1 and 5), digest of fold 0"),
        ({"fold": 1}, "folds (0 and 1; choose common ones with --fold)"),
        ({"draw": 1}, "they differ in digest of fold 0 ("),
        ({"limit": 10}, "24 episodes, and "),
        ({"fingerprint": "bb" * 32}, "differ in annotations of the data (f1f1f1f1 and bbbbbbbb);"),
        ({"score_size": "input"}, "differ in score size (original and input);"),
        ({"dataset": "coco20i"}, "dataset (pascal5i and coco20i)"),
    ],
)
def test_other_episodes(sides, command, other, reason):
    sides[0].add()
    sides[1].add(**other)
    told = refusal(command, sides[0].root, sides[1].root)
    assert "these records are not of the same episodes" in told
    assert reason in told
    digests = [Record.read(side.root / "run-0" / "record.json").manifest.digest for side in sides]
    if digests[0] != digests[1] and "fold" not in other:
        assert all(digest[:8] in told for digest in digests)


def test_another_seed(sides, command):
    """Also if no other field of the record differs."""
    sides[0].add()
    change(sides[1].add(), seed=7)
    assert "differ in seed (0 and 7);" in refusal(command, *(side.root for side in sides))


def test_folds_must_be_the_same_or_chosen(pair, command):
    shutil.rmtree(pair[1] / "run-3")
    told = refusal(command, *pair)
    assert "folds (0, 1, 2, 3 and 0, 1, 2; choose common ones with --fold)" in told
    assert command(*pair, "--fold", "0,2")[0] == 0
    assert "two: no record of fold 3; it has 0, 2" in refusal(command, *pair, "--fold", "0,2,3")


def test_a_folder_of_several_shots_needs_a_choice(sides, command):
    for side in sides:
        side.folds(side.root.name)
        side.folds(side.root.name, shots=5)
    roots = [side.root for side in sides]
    assert "one: records of shots 1, 5; choose with --shots 1" in refusal(command, *roots)
    code, out, _ = command(*roots, "--shots", "5")
    assert code == 0
    assert "pascal5i/v1-1k, 5-shot" in out
    told = refusal(command, *roots, "--shots", "10", "--fold", "0")
    assert "no such record; there are fold 0 1-shot seed 0, fold 0 5-shot" in told


def test_a_folder_of_several_methods(sides, command):
    sides[0].folds("this")
    sides[0].folds("that")
    sides[1].folds("other")
    told = refusal(command, sides[0].root, sides[1].root)
    assert "one: records of 2 methods or protocols, e.g. " in told
    assert "name the folder of one" in told


def test_a_fold_twice(sides, command):
    sides[0].add()
    sides[0].add()
    sides[1].add()
    told = refusal(command, sides[0].root, sides[1].root)
    assert "two records of fold 0: " in told


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere", "no such folder"),
        ("run-0/rows.csv.gz", "name a record.json, or a folder that holds some"),
    ],
)
def test_no_record(sides, command, path, reason):
    folder = sides[0].add()
    assert reason in refusal(command, folder, sides[0].root / path)


def test_a_record_that_does_not_follow_from_its_rows(sides, command):
    one, two = (side.add() for side in sides)
    scores = Record.read(two / "record.json").scores
    change(two, scores={**scores, "miou": 99.0})
    assert "scores.miou is 99.000000, the rows give" in refusal(command, one, two)
    change(two, scores=scores)
    assert command(one, two)[0] == 0
    (two / "rows.csv.gz").unlink()
    assert "rows.csv.gz: missing" in refusal(command, one, two)


# --- the plot -------------------------------------------------------------------------------------


@needs_matplotlib
def test_plot(pair, command, tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "new" / "plot.png"
    assert command(*pair, "--plot", path)[0] == 0
    picture = imread(path)
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    assert picture.std() > 0.05


@needs_matplotlib
def test_plot_shows_names_as_they_are(sides, command, tmp_path):
    one, two = (side.add(config={"note": f"${side.root.name}$"}, luck=k)
                for k, side in enumerate(sides))  # fmt: skip
    path = tmp_path / "plot.svg"
    assert command(one, two, "--plot", path)[0] == 0
    assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")
    assert "$one$" in path.read_text()  # as a comment beside the glyphs


def test_a_plot_of_another_kind(pair, command, tmp_path):
    told = refusal(command, *pair, "--plot", tmp_path / "plot.doc")
    assert "plot.doc: a picture's name ends in .png, .pdf, .svg" in told


def test_a_plot_without_matplotlib(pair, command, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find_spec(name)
    )
    told = refusal(command, *pair, "--plot", tmp_path / "plot.png")
    assert "a plot needs matplotlib, not installed: pip install 'fssbench[train]'" in told
