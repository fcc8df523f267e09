"""Detection of manual changes."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest
from records_for_tests import change_record

from fssbench import registry
from fssbench.board.board import build_boards
from fssbench.board.check import check_boards
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.results.rows import read_rows, write_rows
from fssbench.results.verify import known_folds


@pytest.fixture(scope="module")
def built(tmp_path_factory, runs_below) -> Path:
    """A valid board of two methods and two folds."""
    folder = tmp_path_factory.mktemp("board")
    runs = runs_below(folder / "runs")
    for matcher, quality in (("prototype", 0.5), ("other", 0.7)):
        for fold in (0, 1):
            runs.add(matcher, fold=fold, quality=quality)
    build_boards([runs.root], folder / "boards")
    (folder / "boards" / "README.md").write_text("by hand\n")
    return folder / "boards"


@pytest.fixture
def board(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "boards")


def test_a_fresh_board_is_fine(board):
    assert check_boards(board) == []


def test_line_ends_that_git_converted_are_fine(board):
    for path in (*board.glob("*.md"), *board.rglob("record.json")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check_boards(board) == []


def one_result(board: Path) -> Path:
    return sorted(file.parent for file in board.rglob("record.json"))[0]


def only_problem(board: Path) -> str:
    (problem,) = check_boards(board)
    assert "\n" not in problem
    return problem


def test_an_edited_number_on_the_page(board):
    page = board / "pascal5i.md"
    lines = page.read_text().splitlines(keepends=True)
    number = next(i for i, line in enumerate(lines) if line.startswith("|    1 "))
    lines[number] = lines[number].replace(".", ",", 1)
    page.write_text("".join(lines))
    assert only_problem(board) == (
        f"{page}: line {number + 1} does not follow from the results; build the board again"
    )


def test_a_line_added_at_the_end_of_the_page(board):
    page = board / "pascal5i.md"
    page.write_text(page.read_text() + "the best\n")
    assert "does not follow" in only_problem(board)


def test_a_missing_page(board):
    (board / "pascal5i.md").unlink()
    assert "pascal5i.md: missing; build the board again" in only_problem(board)


def test_a_page_without_results(board):
    (board / "imagenet.md").write_text("# imagenet\n")
    assert "imagenet.md: page without results; delete it" in only_problem(board)


@pytest.mark.parametrize("score", ["miou", "fb_iou", "episode_miou"])
def test_an_edited_score(board, score):
    change_record(one_result(board), "scores", score, value=99.5)
    assert f"scores.{score} is 99.500000, the rows give" in only_problem(board)


def test_a_score_that_is_no_number(board):
    change_record(one_result(board), "scores", "miou", value=float("nan"))
    assert "this record is damaged" in only_problem(board)
    assert "$.scores['miou']" in only_problem(board)


def test_a_removed_score(board):
    change_record(one_result(board), "scores", value={})
    assert any("scores.miou is missing" in problem for problem in check_boards(board))


def test_an_edited_interval(board):
    change_record(one_result(board), "intervals", "miou", value=[70.0, 71.0])
    assert "intervals.miou is 70.0000 to 71.0000, the rows give" in only_problem(board)


def test_an_edited_class(board):
    folder = one_result(board)
    per_class = json.loads((folder / "record.json").read_text())["per_class"]
    per_class[1]["iou"] = 100.0
    change_record(folder, "per_class", value=per_class)
    assert "per_class of class 1 is not what the rows give" in only_problem(board)
    change_record(folder, "per_class", value=per_class[:1])
    assert "per_class has other classes" in only_problem(board)


def test_an_edited_row(board):
    folder = one_result(board)
    rows = read_rows(folder / "rows.csv.gz")
    rows.loc[3, "intersection_fg"] = rows.loc[3, "union_fg"]
    write_rows(rows, folder / "rows.csv.gz")
    assert any("scores.miou is" in problem for problem in check_boards(board))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows.drop(index=5), "23 rows for the manifest's 24 episodes"),
        (lambda rows: rows.iloc[::-1], "line 2 is not episode 0"),
        (lambda rows: rows.drop(columns="union_bg"), "lack the column union_bg"),
        (lambda rows: rows.assign(intersection_fg=-1), "whole numbers from 0"),
        (lambda rows: rows.assign(intersection_fg=0.5), "whole numbers from 0"),
        (lambda rows: rows.assign(intersection_fg=10**9), "larger than union_fg"),
        (lambda rows: rows.assign(union_bg=2**62), "whole numbers from 0 to 2147483647"),
        (lambda rows: rows.assign(extra="text"), "Unable to parse string"),
    ],
)
def test_rows_that_are_not_the_manifests(board, change, reason):
    folder = one_result(board)
    write_rows(change(read_rows(folder / "rows.csv.gz")), folder / "rows.csv.gz")
    assert reason in only_problem(board)


def test_a_changed_manifest(board):
    path = one_result(board) / "manifest.jsonl.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("image-2", "image-3", 1).encode()))
    assert "does not fit its digest" in only_problem(board)


def test_another_manifest_with_a_digest_of_its_own(board):
    path = one_result(board) / "manifest.jsonl.gz"
    manifest = Manifest.read(path)
    other = manifest.limited(20)
    other.write(path)
    found = " ".join(check_boards(board))
    assert "manifest.digest is" in found
    assert "24 rows for the manifest's 20 episodes" in found


@pytest.mark.parametrize("name", ["record.json", "rows.csv.gz", "manifest.jsonl.gz"])
def test_a_missing_file(board, name):
    (one_result(board) / name).unlink()
    assert f"{name}: missing" in only_problem(board)


@pytest.mark.parametrize("text", ["no json", "[]", '{"schema": 1}', "[" * 100_000])
def test_a_damaged_record(board, text):
    (one_result(board) / "record.json").write_text(text)
    assert "record" in only_problem(board)


def test_a_record_that_was_changed_without_its_digest(board):
    """Also in fields that no other file could contradict: times, versions, names."""
    path = one_result(board) / "record.json"
    text = path.read_text()
    for change in (('"seconds_per_episode": 0.0', '"seconds_per_episode": 9.0'),
                   ('"batch_size": 1', '"batch_size": 3'), ('{', '{"more": 1,')):  # fmt: skip
        assert change[0] in text
        path.write_text(text.replace(*change, 1))
        assert "record.json: the content does not fit its digest" in only_problem(board)


def test_a_record_from_before_there_were_digests(board):
    folder = one_result(board)
    fields = json.loads((folder / "record.json").read_text())
    del fields["digest"]
    (folder / "record.json").write_text(json.dumps(fields, indent=2) + "\n")
    assert check_boards(board) == []
    fields["scores"]["miou"] = 99.5
    (folder / "record.json").write_text(json.dumps(fields, indent=2) + "\n")
    assert "scores.miou is 99.500000, the rows give" in only_problem(board)


@pytest.mark.parametrize("path", ["/home/me/weights.pt", "C:\\weights.pt", "~/weights.pt"])
def test_an_absolute_path(board, path):
    change_record(one_result(board), "environment", "checkpoints", value=[{"file": path}])
    problem = only_problem(board)
    assert "environment.checkpoints[0].file is an absolute path" in problem
    assert "/home/me" not in problem


def test_a_record_of_another_fold(board):
    change_record(one_result(board), "fold", value=3)
    assert "fold is 3, the manifest has 0" in only_problem(board)


def test_a_fold_that_the_dataset_does_not_have(runs, tmp_path):
    """Its record would be a column that all other rows lack."""
    runs.add()
    runs.add("stranger", fold=4)
    with pytest.raises(FssbenchError, match=r"fold is 4, but pascal5i has 4 \(from 0\)"):
        build_boards([runs.root], tmp_path / "boards")
    assert not (tmp_path / "boards").exists()


def test_folds_of_a_dataset_that_is_not_installed_are_not_judged(runs, tmp_path):
    folder = runs.add(dataset="elsewhere", protocol="elsewhere/v1", fold=9)
    build_boards([folder], tmp_path / "boards")
    assert check_boards(tmp_path / "boards") == []


@pytest.mark.parametrize(
    ("dataset", "folds"),
    [("shapes", 4), ("coco20i", 4), ("fss1000", 1), ("folder", 1), ("elsewhere", None)],
)
def test_known_folds(dataset, folds):
    assert known_folds(dataset) == folds


def test_a_default_number_of_folds_is_no_declaration(tmp_path):
    """`Dataset.folds` is 1 by default, and an object may set its own."""
    file = tmp_path / "own_folds.py"
    file.write_text(PLUGIN)
    registry.use_plugins([str(file)])
    try:
        assert known_folds("by-object") is None
        assert known_folds("by-class") == 3
        assert known_folds("by-function") is None
    finally:
        registry.use_plugins([])
        sys.modules.pop("own_folds", None)


PLUGIN = """
import fssbench
from fssbench.data.dataset import Dataset
from fssbench.specs import DatasetSpec

class ByObject(Dataset):
    def __init__(self, *, root):
        self.folds = 2

class ByClass(ByObject):
    folds = 3

def make(*, root):
    return ByObject(root=root)

@fssbench.hookimpl
def fssbench_datasets():
    names = {"by-object": "ByObject", "by-class": "ByClass", "by-function": "make"}
    return [
        DatasetSpec(name=name, summary="for a test", factory=f"own_folds:{attribute}")
        for name, attribute in names.items()
    ]
"""


def test_a_result_in_the_wrong_folder(board):
    folder = one_result(board)
    folder.rename(folder.with_name("fold7-1shot-seed0"))
    assert "this result belongs in results/pascal5i/v1-1k/" in only_problem(board)


def test_an_option_changed_after_the_fact(board):
    change_record(one_result(board), "config", "temperature", value=20.0)
    assert "belongs in" in only_problem(board)


def test_a_negative_time(board):
    change_record(one_result(board), "cost", "seconds_per_episode", value=-1.0)
    assert "cost.seconds_per_episode is -1.0" in only_problem(board)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FssbenchError, match="no such folder"):
        check_boards(tmp_path / "nowhere")
