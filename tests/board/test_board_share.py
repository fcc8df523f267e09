"""Boards as data sets of the Hugging Face hub."""

from __future__ import annotations

import attrs
import pytest
from records_for_tests import change_record

from fssbench.board.board import build_boards

TO = "hf://datasets/ann/boards"
REPOSITORY = "datasets/ann/boards"


@pytest.fixture
def boards(runs, tmp_path):
    """Boards of two methods on four folds."""
    runs.folds()
    runs.folds("other", quality=0.4)
    build_boards([runs.root], tmp_path / "boards")
    (tmp_path / "boards" / "results" / "pascal5i" / "NOTE.txt").write_text("A note.\n")
    build_boards([], tmp_path / "boards")
    return tmp_path / "boards"


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_pushed_boards_are_pulled_byte_for_byte(hub_here, run, boards, tmp_path):
    (boards / "index.html").write_text("no part of the boards")
    (boards / "results" / "stray.bin").write_text("nor is this")
    code, out, err = run("board", "push", boards, "--to", TO)
    assert code == 0, err
    assert out.strip() == f"{TO}@{hub_here.order[REPOSITORY][-1]}"
    newest = hub_here.newest(REPOSITORY)
    assert "[pascal5i.md](pascal5i.md)" in newest["README.md"].decode()
    code, out, err = run("board", "pull", TO, "--to", tmp_path / "pulled")
    assert (code, out) == (0, "fine\n"), err
    pulled = files_below(tmp_path / "pulled")
    sent = files_below(boards)
    del sent["index.html"], sent["results/stray.bin"], pulled["README.md"]
    assert pulled == sent


def test_a_commit_is_pulled_and_the_hub_mirrors_the_folder(hub_here, run, boards, tmp_path):
    (boards / "README.md").write_text("Our boards.\n")
    first = run("board", "push", boards, "--to", TO)[1].strip()
    before = set(hub_here.newest(REPOSITORY))
    gone = sorted(boards.rglob("record.json"))[0].parent
    for path in gone.iterdir():
        path.unlink()
    build_boards([], boards)
    assert run("board", "push", boards, "--to", TO)[0] == 0
    missing = before - set(hub_here.newest(REPOSITORY))
    assert missing == {
        f"{gone.relative_to(boards).as_posix()}/{name}"
        for name in ("record.json", "rows.csv.gz", "manifest.jsonl.gz")
    }
    assert hub_here.newest(REPOSITORY)["README.md"] == b"Our boards.\n"
    assert run("board", "pull", first, "--to", tmp_path / "old")[0] == 0
    assert len(list((tmp_path / "old").rglob("record.json"))) == 8
    assert run("board", "pull", TO, "--to", tmp_path / "new")[0] == 0
    assert len(list((tmp_path / "new").rglob("record.json"))) == 7


def test_pulled_boards_are_checked(hub_here, run, boards, tmp_path):
    run("board", "push", boards, "--to", TO)
    page = hub_here.newest(REPOSITORY)["pascal5i.md"]
    hub_here.commit(REPOSITORY, {"pascal5i.md": page.replace(b"other", b"OTHER")})
    code, _, err = run("board", "pull", TO, "--to", tmp_path / "pulled")
    assert code == 1
    assert "does not follow from the results" in err


def test_private_and_broken_results_are_not_pushed(hub_here, run, boards, monkeypatch):
    record = sorted(boards.rglob("record.json"))[0].parent
    change_record(record, "environment", "batch_size", value="on kestrel")
    monkeypatch.setattr("socket.gethostname", lambda: "kestrel")
    code, _, err = run("board", "push", boards, "--to", TO)
    assert code == 2
    assert "the name of this user or this machine" in err
    change_record(record, "scores", "miou", value=99.0)
    code, _, err = run("board", "push", boards, "--to", TO)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert not hub_here.order


def test_an_offline_pull_reads_the_cache(hub_here, run, boards, tmp_path, monkeypatch):
    run("board", "push", boards, "--to", TO)
    offline = "huggingface_hub.constants.HF_HUB_OFFLINE"
    monkeypatch.setattr(offline, True)
    code, _, err = run("board", "pull", TO, "--to", tmp_path / "pulled")
    assert code == 2
    assert "HF_HUB_OFFLINE is set, and the cache does not have it" in err
    monkeypatch.setattr(offline, False)
    assert run("board", "pull", TO, "--to", tmp_path / "first")[0] == 0
    monkeypatch.setattr(offline, True)
    assert run("board", "pull", TO, "--to", tmp_path / "second")[0] == 0
    assert files_below(tmp_path / "second") == files_below(tmp_path / "first")


def test_boards_name_the_address_of_a_checkpoint(runs, trained, tmp_path):
    """An address that is none, of a record that somebody edited, is not printed."""
    right = f"hf://ann/nets/a.safetensors@{'0' * 40}"
    for fold, address in enumerate([right, "hf://`<b>", "", ""]):
        runs.add("dcama", fold=fold, checkpoint=attrs.evolve(trained(fold), address=address))
    (page,) = build_boards([runs.root], tmp_path / "boards")
    text = page.read_text()
    assert f"fold 0 `aaaaaaaa` `{right}`, fold 1 `bbbbbbbb`, fold 2" in text
    assert "<b>" not in text


def test_refused_pulls(hub_here, run, boards, tmp_path):
    def fails(*arguments: object) -> str:
        code, _, err = run("board", "pull", *arguments)
        assert code == 2, err
        (line,) = err.splitlines()
        return line

    assert "not empty; name a new folder" in fails(TO, "--to", boards)
    new = tmp_path / "new"
    assert "the hub has no dataset repository ann/boards" in fails(TO, "--to", new)
    assert "write hf://datasets/USER/NAME@REVISION" in fails("hf://ann/boards", "--to", new)
    hub_here.commit(REPOSITORY, {"README.md": b"none", "data.csv": b""})
    assert "no results of fssbench in this repository" in fails(TO, "--to", new)
    assert not new.exists()
