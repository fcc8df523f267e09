"""Submission of runs to a public board."""

import shutil
import socket
from pathlib import Path

import attrs
import pytest
from records_for_tests import change_record

from fssbench.board.board import build_boards
from fssbench.board.check import check_boards
from fssbench.board.submit import submit
from fssbench.cli import _run
from fssbench.errors import FssbenchError
from fssbench.results.record import Record, Weights


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def built(tmp_path_factory, runs_below) -> Path:
    """A board with a row."""
    folder = tmp_path_factory.mktemp("board")
    theirs = runs_below(folder / "theirs")
    theirs.folds("theirs", quality=0.4)
    build_boards([theirs.root], folder / "boards")
    return folder / "boards"


@pytest.fixture
def board(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "boards")


def command(*arguments: object) -> int:
    return _run(["board", "submit", *map(str, arguments)])


def only_line(capsys) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_method_becomes_a_row(runs, board, capsys):
    folders = runs.folds("mine", quality=0.6)
    assert command(runs.root, "--to", board) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == ["added"] * 4 + ["built", "next:"]
    assert captured.err == ""
    assert check_boards(board) == []
    places = [Path(line.removeprefix("added").strip()) for line in lines[:4]]
    for folder, place in zip(folders, places, strict=True):
        assert place.is_relative_to(board / "results" / "pascal5i" / "v1-1k")
        assert sorted(p.name for p in place.iterdir()) == [
            "manifest.jsonl.gz",
            "record.json",
            "rows.csv.gz",
        ]
        assert all((folder / p.name).read_bytes() == p.read_bytes() for p in place.iterdir())
    page = (board / "pascal5i.md").read_text()
    assert page.index("| mine") < page.index("| theirs")


def test_once_more_changes_nothing(runs, board, capsys):
    runs.folds("mine")
    submit([runs.root], board)
    before = files(board)
    capsys.readouterr()
    assert command(runs.root, "--to", board) == 0
    assert files(board) == before
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:4]] == ["is"] * 4


def test_a_board_that_is_not_there_yet_is_made(runs, tmp_path):
    done = submit([runs.add()], tmp_path / "new" / "boards")
    assert [page.name for page in done.pages] == ["pascal5i.md"]
    assert check_boards(tmp_path / "new" / "boards") == []


@pytest.mark.parametrize("when", ["2025-01-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"])
def test_a_different_result_is_not_overwritten(runs, board, capsys, when):
    submit([runs.add(quality=0.5)], board)
    before = files(board)
    other = runs.add(quality=0.6, created=when)
    assert command(other, "--to", board) == 2
    line = only_line(capsys)
    assert "is another result of this method and setting" in line
    assert "delete that folder first" in line
    assert files(board) == before


def test_two_runs_of_one_setting(runs, board, capsys):
    runs.add(quality=0.5)
    runs.add(quality=0.6)
    assert command(runs.root, "--to", board) == 2
    assert "is the same method and setting; submit one" in only_line(capsys)


def test_a_run_that_is_not_finished(runs, board, capsys):
    runs.add()
    started = runs.add(fold=1)
    (started / "record.json").unlink()
    before = files(board)
    assert command(runs.root, "--to", board) == 2
    assert f"{started}: this run is not finished" in only_line(capsys).replace("fssbench: ", "")
    assert files(board) == before


def test_only_an_unfinished_run(runs, board, capsys):
    started = runs.add()
    (started / "record.json").unlink()
    assert command(started, "--to", board) == 2
    assert "this run is not finished; run its `fssbench evaluate` again" in only_line(capsys)


def test_a_run_that_was_cut_short(runs, board, capsys):
    before = files(board)
    assert command(runs.add(limit=10), "--to", board) == 2
    assert "only the first 10 episodes were measured; evaluate without --limit" in only_line(capsys)
    assert files(board) == before


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("schema",), 9, "a record of schema 9"),
        (("scores", "miou"), 99.0, "scores.miou is 99"),
        (("intervals", "miou"), [1.0, 99.0], "intervals.miou is 1"),
        (("manifest", "digest"), "00" * 32, "manifest.digest is"),
        (("config", "file"), "/data/x", "config.file is an absolute path"),
        (("config", "file"), "in /data/me/x", "config.file holds a path of a machine"),
        (("environment", "HF_TOKEN"), "x", "environment.HF_TOKEN holds"),
        (("environment", "host"), "gpu1", "environment.host holds"),
        (
            ("environment", "note"),
            "by a.b@example.org",
            "environment.note holds a mail address",
        ),
    ],
)
def test_what_does_not_verify_or_is_private(runs, board, capsys, keys, value, reason):
    runs.add("fine")
    change_record(runs.add("bad", fold=1), *keys, value=value)
    before = files(board)
    assert command(runs.root, "--to", board) == 2
    assert reason in only_line(capsys)
    assert files(board) == before


def test_rows_that_were_changed(runs, board):
    folder = runs.add()
    (folder / "rows.csv.gz").write_bytes((runs.add(quality=0.9) / "rows.csv.gz").read_bytes())
    with pytest.raises(FssbenchError, match=r"scores\.\w+ is .*, the rows give"):
        submit([folder], board)


def test_the_name_of_this_machine(runs, board, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "kestrel.example.net")
    folder = runs.add(environment={"hardware": "AMD EPYC (kestrel)", "precision": "fp32"})
    with pytest.raises(FssbenchError, match="the name of this user or this machine"):
        submit([folder], board)
    monkeypatch.setattr(socket, "gethostname", lambda: "other")
    submit([folder], board)


def test_the_name_of_this_user(runs, board, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "jdoe")
    folder = runs.add(environment={"hardware": "box of jdoe", "precision": "fp32"})
    with pytest.raises(FssbenchError, match="the name of this user or this machine"):
        submit([folder], board)


def test_an_account_without_a_name(runs, board, monkeypatch):
    def fail() -> str:
        raise OSError("no username set in the environment")

    monkeypatch.setattr("getpass.getuser", fail)
    assert len(submit([runs.add()], board).added) == 1


def test_a_broken_board_takes_nothing(runs, board):
    first = min(board.rglob("record.json")).parent
    change_record(first, "scores", "miou", value=99.0)
    before = files(board)
    with pytest.raises(FssbenchError, match=r"scores\.miou"):
        submit([runs.add()], board)
    assert files(board) == before


@pytest.mark.parametrize("run", ["missing", "empty"])
def test_no_run(board, tmp_path, capsys, run):
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / run, "--to", board) == 2
    assert run in only_line(capsys)


def test_arguments_that_are_missing(board, capsys):
    assert command("--to", board) == 2
    assert "RUN" in only_line(capsys)
    assert command("runs") == 2
    assert "--to" in only_line(capsys)


def test_rows_that_will_not_rank_are_reported(runs, board):
    runs.add("lucky", weights=Weights(source="random"))
    runs.add("replayed", protocol="pascal5i/hsnet-1k")
    notes = submit([runs.root], board).notes
    assert [note.partition(": ")[2] for note in notes] == [
        "random weights: its row has no rank",
        "replay of a published protocol: its row has no rank",
        *(
            "fold1-1shot-seed0, fold2-1shot-seed0, fold3-1shot-seed0 missing: a row that lacks "
            "folds has no rank",
        )
        * 2,
    ]


def test_folds_that_are_there_already_are_not_missing(runs, board):
    first = [runs.add("mine", fold=fold) for fold in (0, 2, 3)]
    assert "fold1-1shot-seed0 missing" in submit(first, board).notes[0]
    assert submit([runs.add("mine", fold=1)], board).notes == ()


def test_uncommitted_changes_are_reported(runs, board):
    runs.folds(environment={"precision": "fp32", "dirty": True})
    assert len(submit([runs.root], board).notes) == 4


def test_only_the_three_files_are_copied(runs, board):
    folder = runs.add()
    (folder / "run.json").write_text("{}")
    (folder / "panels").mkdir()
    (folder / "panels" / "x.png").touch()
    (place,) = submit([folder], board).added
    assert len(list(place.rglob("*"))) == 3
    assert attrs.asdict(Record.read(place / "record.json"))["matcher"] == "prototype"
