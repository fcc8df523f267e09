"""Building of pages from runs."""

import re
import shutil
from pathlib import Path

import attrs
import pytest
from markdown_it import MarkdownIt
from records_for_tests import change_record

from fssbench.board import board
from fssbench.board.board import build_boards
from fssbench.board.check import check_boards
from fssbench.board.markdown import escape
from fssbench.errors import FssbenchError
from fssbench.results.record import Record


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def table_lines(page: Path) -> list[str]:
    """Return the lines of the measured tables."""
    measured = page.read_text().split("## Published numbers")[0]
    return [line for line in measured.splitlines() if line.startswith("|")]


def test_a_page_for_each_dataset_and_results_beside_it(runs, tmp_path):
    runs.folds()
    runs.add(protocol="shapes/v1-1k", dataset="shapes")
    out = tmp_path / "boards"
    pages = build_boards([runs.root], out)
    assert [page.name for page in pages] == ["pascal5i.md", "shapes.md"]
    text = pages[0].read_text()
    assert text.startswith("# pascal5i\n")
    assert "## pascal5i/v1-1k, 1-shot" in text
    assert "toaster" in text
    assert "Published numbers" not in pages[1].read_text()
    links = re.findall(r"\]\((results/[^)]*record\.json)\)", text)
    assert len(links) == 4
    assert all((out / link).is_file() for link in links)
    assert check_boards(out) == []


def test_the_same_results_give_the_same_bytes(runs, tmp_path):
    runs.folds("prototype")
    runs.folds("other", quality=0.7)
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    build_boards([runs.root], one)
    for folder in sorted(runs.root.iterdir(), reverse=True):
        build_boards([folder], two)
    shutil.copytree(one / "results", tmp_path / "copy")
    build_boards([tmp_path / "copy"], three)
    assert files(one) == files(two) == files(three)
    build_boards([one], one)
    assert files(one) == files(two)


def test_a_lone_fold_has_no_mean_column(runs, tmp_path):
    runs.add(fold=0)
    (page,) = build_boards([runs.root], tmp_path / "boards")
    header = table_lines(page)[0]
    assert "mIoU, fold 0" in header
    assert "Mean" not in header
    assert "Note" not in header


def test_the_mean_says_of_which_folds_when_not_of_all(runs, tmp_path):
    runs.add("honest", fold=0)
    runs.folds("short", limit=10)
    (page,) = build_boards([runs.root], tmp_path / "boards")
    assert "| Mean of 0 |" in table_lines(page)[0]


def test_published_rows_have_no_rank_and_stay_below(runs, tmp_path):
    runs.folds(quality=0.01)
    (page,) = build_boards([runs.root], tmp_path / "boards")
    measured, published = page.read_text().split("## Published numbers")
    assert "HDMNet" not in measured
    assert "HDMNet" in published
    assert "Rank" not in published
    assert "Hierarchical Dense Correlation Distillation" in published
    assert len(table_lines(page)) == 3


def test_a_newer_record_of_the_same_evaluation_replaces_the_older(runs, tmp_path):
    out = tmp_path / "boards"
    new = runs.add(quality=0.6, created="2026-02-01T00:00:00+00:00")
    old = runs.add(quality=0.4)
    build_boards([new], out)
    before = files(out)
    build_boards([old], out)
    assert files(out) == before
    build_boards([old], tmp_path / "other")
    build_boards([new], tmp_path / "other")
    assert files(tmp_path / "other") == before


def test_one_cell_cannot_hold_two_episode_sets(runs, tmp_path):
    runs.add()
    runs.add(draw=1)
    with pytest.raises(FssbenchError, match=r"with other episodes; leave one of them out"):
        build_boards([runs.root], tmp_path / "boards")


def test_unfinished_runs_are_counted_and_left_out(runs, tmp_path, caplog):
    runs.add()
    (runs.add(fold=1) / "record.json").unlink()
    build_boards([runs.root], tmp_path / "boards")
    assert "left out 1 unfinished run" in caplog.text


def test_nothing_is_added_when_one_run_does_not_verify(runs, tmp_path):
    runs.add()
    bad = runs.add(fold=1)
    record = Record.read(bad / "record.json")
    attrs.evolve(record, scores={**record.scores, "miou": 99.0}).write(bad)
    with pytest.raises(FssbenchError, match=r"scores\.miou is 99\.0+, the rows give"):
        build_boards([runs.root], tmp_path / "boards")
    assert not (tmp_path / "boards").exists()


def test_a_result_that_was_changed_after_it_was_stored_stops_the_build(runs, tmp_path):
    out = tmp_path / "boards"
    build_boards([runs.add()], out)
    (stored,) = out.rglob("record.json")
    record = Record.read(stored)
    attrs.evolve(record, scores={**record.scores, "miou": 99.0}).write(stored.parent)
    with pytest.raises(FssbenchError, match=r"scores\.miou"):
        build_boards([runs.add(fold=1)], out)


def test_without_runs_the_pages_are_written_anew(runs, tmp_path):
    out = tmp_path / "boards"
    (page,) = build_boards([runs.add()], out)
    before = page.read_bytes()
    page.write_text("spoilt")
    assert build_boards([], out) == [page]
    assert page.read_bytes() == before


@pytest.mark.parametrize("path", ["missing", "empty"])
def test_runs_without_a_record_are_reported(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FssbenchError, match=path):
        build_boards([tmp_path / path], tmp_path / "boards")


@pytest.mark.parametrize("name", ["../../escape", "a/../b", "a/b/c", "..", "", "A", "a b", "x\n"])
@pytest.mark.parametrize("field", ["matcher", "backbone"])
def test_names_cannot_leave_the_folder(runs, tmp_path, field, name):
    folder = runs.add()
    change_record(folder, field, value=name)
    with pytest.raises(FssbenchError, match="is no name"):
        build_boards([folder], tmp_path / "boards")


EVIL = "x | **99.9** |\n# Owned <img src=x> `code` [link](javascript:alert) \\| http://evil.example"


def test_text_of_a_record_stays_text(runs, tmp_path):
    runs.folds(config={"note": EVIL})
    runs.folds(config={"note": "plain"}, quality=0.4)
    (page,) = build_boards([runs.root], tmp_path / "boards")
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table_lines(page)}) == 1
    html = MarkdownIt("gfm-like", {"linkify": False}).render(page.read_text())
    measured = html.split("Published numbers")[0]
    assert "<img" not in measured
    assert measured.count("<h1>") == 1
    assert "<strong>99.9" not in measured
    assert set(re.findall(r'href="([^/"]*)', measured)) == {"results"}
    assert measured.count("<code>") == 5  # annotations and four manifests


def test_escape_is_one_short_line_of_visible_characters():
    assert escape("a\nb\tc\u202ed\x00e") == "a b c d e"
    assert escape("x" * 200) == "x" * 79 + "…"
    assert escape("a_b*c") == r"a\_b\*c"
    assert escape("https://evil.example") == r"https\://evil.example"


def test_a_note_stands_at_the_head_of_the_page(runs, tmp_path):
    runs.folds()
    out = tmp_path / "noted"
    (page,) = build_boards([runs.root], out)
    plain = page.read_text()
    note = out / "results" / page.stem / "NOTE.txt"
    note.write_text("These are **mini sets**.\n\nNot | comparable.\n")
    assert [p.rpartition(": ")[2] for p in check_boards(out)] == [
        "line 3 does not follow from the results; build the board again"
    ]
    (page,) = build_boards([], out)
    head = page.read_text().split("\n\n")[1]
    assert head == "> These are \\*\\*mini sets\\*\\*.\n>\n> Not \\| comparable."
    assert check_boards(out) == []
    note.unlink()
    (page,) = build_boards([], out)
    assert page.read_text() == plain


def test_results_of_another_build_at_the_same_time_are_on_the_page(runs, tmp_path, monkeypatch):
    runs.folds("first")
    out, other, rendered = tmp_path / "boards", type(runs)(tmp_path / "others"), []
    other.folds("second", quality=0.4)
    render = board.render_boards

    def interrupted(*arguments):
        rendered.append(pages := render(*arguments))
        if len(rendered) == 1:
            build_boards([other.root], out)
        return pages

    monkeypatch.setattr(board, "render_boards", interrupted)
    build_boards([runs.root], out)
    assert "second" in (out / "pascal5i.md").read_text()
    assert check_boards(out) == []
    assert len(rendered) == 3
