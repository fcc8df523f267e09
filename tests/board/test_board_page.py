"""The page as text: content, self-containedness, escaping."""

import base64
import hashlib
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import attrs
import pytest

from fssbench.board.board import build_boards
from fssbench.board.site.html import script_json, tag
from fssbench.board.site.page import write_page
from fssbench.board.site.scatter import Point, scatter
from fssbench.board.text import count
from fssbench.cli import _run
from fssbench.errors import FssbenchError
from fssbench.results.record import Record, Weights

EVIL = (
    "</script><script>alert(1)</script> \"'><img src=x onerror=alert(2)>"
    "\u2028\u2029**b** [l](x)&lt;"
)


class Outline(HTMLParser):
    """Elements of a page with their attributes, and the text of its cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "link", "input", "br"):
            self.open.append(name)
        if name == "tr":
            self.rows.append([])
        elif name in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_data(self, text):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += text

    def attributes(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]


def parsed(page: Path) -> Outline:
    outline = Outline(page.read_text())
    assert outline.open == []
    return outline


def details(page: Path) -> list[dict]:
    (text,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text())
    return list(json.loads(text).values())


@pytest.fixture(scope="module")
def built(tmp_path_factory, runs_below) -> Path:
    """Two methods of four folds, one with random weights, and a replay of one fold."""
    folder = tmp_path_factory.mktemp("board")
    runs = runs_below(folder / "runs")
    runs.folds("better", quality=0.6)
    runs.folds("worse", quality=0.4, backbone="resnet101")
    runs.folds("lucky", quality=0.9, weights=Weights(source="random"))
    runs.add("replayed", protocol="pascal5i/hsnet-1k")
    build_boards([runs.root], folder / "boards")
    return folder / "boards"


@pytest.fixture
def board(built, tmp_path) -> Path:
    return shutil.copytree(built, tmp_path / "boards")


def test_measured_rows_with_their_ranks_scores_and_records(board):
    page = write_page(board)
    assert page == board / "index.html"
    outline = parsed(page)
    rows = {row[1]: row for row in outline.rows if len(row) == 12}
    record = Record.read(next(board.glob("results/pascal5i/v1-1k/better*/fold2*/record.json")))
    better = rows["betterresnet50"]
    assert (better[0], better[2]) == ("1", "resnet50")
    assert better[6] == f"{record.scores['miou']:.1f}"
    assert better[9:] == ["0", "12", "0 1 2 3"]
    assert rows["luckyresnet50 (random weights)random weights"][0] == "—"
    assert rows["worseresnet101"][0] == "2"
    links = [a["href"] for a in outline.attributes("a") if "record.json" in (a["href"] or "")]
    assert len(links) == 13
    assert all((board / link).is_file() for link in links)


def test_published_tables_stand_apart_and_have_no_rank(board):
    text = write_page(board).read_text()
    measured, _, published = text.partition("Published numbers")
    assert "HDMNet" in published
    assert "HDMNet" not in measured.partition("<body>")[2]
    assert "cannot be compared with measured rows, and have no rank" in published
    kinds = [a["data-kind"] for a in Outline(text).attributes("article")]
    assert kinds == ["measured"] * 2 + ["published"] * 2
    assert ">Rank<" not in published.partition("How to read")[0]


def test_replays_say_that_they_are(board):
    text = write_page(board).read_text()
    replay = text.partition('data-protocol="pascal5i/hsnet-1k"')[2].partition("</article>")[0]
    assert replay.count("replay of a published protocol") == 2  # the table's head, and the row
    assert "No row has a rank" in replay


def test_a_choice_on_novel_classes_is_marked(runs, trained, tmp_path):
    for fold in range(4):
        runs.add("dcama", fold=fold, checkpoint=trained(fold, selected_on="novel"))
    build_boards([runs.root], tmp_path)
    page = write_page(tmp_path)
    assert '<span class="flag">selected on novel classes</span>' in page.read_text()
    assert ["Selected on", "novel classes"] in details(page)[0]["facts"]


def test_it_needs_nothing_but_itself(board):
    page = write_page(board)
    outline = parsed(page)
    for name, attributes in outline.elements:
        assert name not in ("img", "iframe", "object", "embed", "base", "form"), name
        assert "src" not in attributes
        if name == "link":
            assert attributes["href"] == "data:,"
        for key, value in attributes.items():
            assert not key.startswith("on")
            assert key != "href" or not re.match(r"[a-z]+:", value) or value == "data:,"
    text = page.read_text()
    assert "url(" not in text
    assert "@import" not in text
    assert not re.findall(r"https?://", text)
    assert str(board) not in text


def test_only_its_own_script_may_run(board):
    text = write_page(board).read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (a["content"] for a in Outline(text).attributes("meta") if "http-equiv" in a)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_the_same_results_give_the_same_page(board, tmp_path):
    first = write_page(board).read_bytes()
    assert write_page(board).read_bytes() == first


def test_text_of_records_stays_text(runs, tmp_path):
    runs.folds(config={"note": EVIL, EVIL: 1})
    folders = runs.folds(config={"note": "plain"}, quality=0.4)
    for folder in folders:
        record = Record.read(folder / "record.json")
        attrs.evolve(
            record,
            environment={"hardware": EVIL, "precision": EVIL, "fssbench": EVIL},
            weights=Weights(source="file", name=EVIL, sha256="cd" * 32),
        ).write(folder)
    out = tmp_path / "boards"
    build_boards([runs.root], out)
    (out / "results" / "pascal5i" / "NOTE.txt").write_text(f"{EVIL}\n\nsecond")
    page = write_page(out)
    outline = parsed(page)
    text = page.read_text()
    assert len(outline.attributes("script")) == 2
    assert not outline.attributes("img")
    assert "\u2028" not in text
    assert "\u2029" not in text
    assert "alert(1)" in text  # shown, as text
    for row in details(page):
        assert row["label"].startswith("prototype (")
    facts = dict(details(page)[1]["facts"])
    assert facts["Hardware"].startswith("</script><script>alert(1)</script> \"'><img src=x")
    assert "\n" not in facts["Weights"]


def test_a_plugins_fingerprint_is_text_too(runs, tmp_path):
    runs.folds(fingerprint="<b>1</b>")
    build_boards([runs.root], tmp_path)
    page = write_page(tmp_path)
    assert not [e for e in parsed(page).elements if e == ("b", {"evil": ""})]
    assert "annotations &lt;b&gt;1&lt;/b" in page.read_text()


def test_links_follow_the_page(board, tmp_path):
    page = write_page(board, tmp_path / "a b" / "x#y" / "page.html")
    (link, *_) = (a["href"] for a in parsed(page).attributes("a") if "record" in a["href"])
    assert link.startswith("../../boards/results/pascal5i/v1-1k/")
    assert (page.parent / link).is_file()


def test_a_folders_name_never_is_a_scheme(runs, tmp_path):
    out = tmp_path / "javascript:alert(1)"
    runs.add()
    build_boards([runs.root], out)
    page = write_page(out, tmp_path / "page.html")
    (link,) = (a["href"] for a in parsed(page).attributes("a") if "record" in (a["href"] or ""))
    assert link.startswith("javascript%3Aalert%281%29/results/")


def test_panels_that_lie_beside_a_record_are_linked(board):
    (record,) = board.glob("results/pascal5i/v1-1k/better*/fold1-*/record.json")
    (record.parent / "panels").mkdir()
    for name in ("00003-class 4.png", "00001-class 3.png", "notes.txt"):
        (record.parent / "panels" / name).touch()
    page = write_page(board)
    (better,) = (row for row in details(page) if row["label"].startswith("better"))
    panels = {fold["fold"]: fold["panels"] for fold in better["folds"]}
    assert [name for name, _ in panels[1]] == ["00001-class 3.png", "00003-class 4.png"]
    assert panels[1][0][1].endswith("/panels/00001-class%203.png")
    assert panels[0] == []


def test_details_have_each_class_and_where_it_was_measured(board):
    rows = details(write_page(board))
    assert [row["label"] for row in rows] == [
        "better on resnet50",
        "worse on resnet101",
        "lucky on resnet50 (random weights)",
        "replayed on resnet50",
    ]
    record = Record.read(next(board.glob("results/pascal5i/v1-1k/worse*/fold3*/record.json")))
    fold = rows[1]["folds"][3]
    assert fold["classes"] == [[c.name, c.episodes, round(c.iou, 4)] for c in record.per_class]
    assert [row["leader"] for row in rows] == ["row-0"] * 3 + [None]
    assert ["Precision", "fp32"] in rows[1]["facts"]


def test_charts_need_two_methods(board):
    text = write_page(board).read_text()
    assert text.count("<svg") == 2  # none of the replay, which is alone
    chart = text.partition("<svg")[2].partition("</svg>")[0]
    assert chart.count('<g class="point"') == 2
    assert chart.count('<g class="point unranked"') == 1
    assert "better · resnet50" in chart


def test_times_on_different_hardware_are_not_to_be_compared(runs, tmp_path):
    for matcher, machine in (("one", "GPU <A>"), ("other", "CPU B")):
        runs.folds(matcher, environment={"hardware": machine})
    build_boards([runs.root], tmp_path)
    text = html.unescape(write_page(tmp_path).read_text())
    assert "different hardware, so do not compare times across it: CPU B; GPU <A>." in text


@pytest.mark.parametrize("values", [[0, 0], [0, 3e6], [5, 5], [1e3, 1e9], [1.5e6, 2.5e6]])
def test_points_of_a_chart_lie_inside_and_in_order(values):
    points = [
        Point(row=f"r{i}", label=f"m{i}", title="", x=x, y=50 - i, interval=(40, 60), ranked=True)
        for i, x in enumerate(values)
    ]  # fmt: skip
    drawn = Outline(scatter(points, "parameters", count))
    circles = drawn.attributes("circle")
    places = [(float(c["cx"]), float(c["cy"])) for c in reversed(circles)]
    assert all(40 <= x <= 460 and 0 < y < 260 for x, y in places)
    assert places[0][1] < places[1][1]  # the higher score is higher up
    assert (places[0][0] < places[1][0]) == (values[0] < values[1])


def test_names_in_a_chart_do_not_cover_each_other():
    points = [
        Point(row=f"r{i}", label="a rather long name", title="t", x=10, y=50, interval=(50, 50),
              ranked=True)
        for i in range(12)
    ]  # fmt: skip
    drawn = Outline(scatter(points, "ms", count))
    names = [t for t in drawn.attributes("text") if (t["class"] or "").startswith("name")]
    assert 1 <= len(names) <= 8
    assert len({(t["x"], t["y"]) for t in names}) == len(names)


def test_mark_up_is_escaped_where_it_is_made():
    made = tag("p", "<b>", tag("i", "&"), class_="a", title='"x"', hidden=True, id=None)
    assert made == '<p class="a" title="&quot;x&quot;" hidden>&lt;b&gt;<i>&amp;</i></p>'
    value = {"<!--</script>": "\u2028&'\u00e9"}
    assert not set("<>&\u2028\u00e9") & set(script_json(value))
    assert json.loads(script_json(value)) == value


def test_the_command(board, tmp_path, capsys):
    assert _run(["board", "page", str(board), "--out", str(tmp_path / "p.html")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'p.html'}\n"
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")


def test_wrong_folders_are_reported_on_one_line(board, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for arguments, reason in (
        ([str(tmp_path / "missing")], "no such folder"),
        ([str(tmp_path / "empty")], "no results below it"),
        ([str(board), "--out", str(tmp_path)], "this is a folder; name a file"),
        ([str(board), "--out", str(board / "pascal5i.md" / "x.html")], "cannot write"),
    ):
        assert _run(["board", "page", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert reason in line


def test_no_page_of_a_result_that_does_not_follow_from_its_rows(board):
    (record,) = board.glob("results/pascal5i/v1-1k/worse*/fold0*/record.json")
    there = Record.read(record)
    attrs.evolve(there, scores={**there.scores, "miou": 99.0}).write(record.parent)
    with pytest.raises(FssbenchError, match=r"scores\.miou is 99"):
        write_page(board)
    assert not (board / "index.html").exists()


def test_another_dataset_is_a_section_of_its_own(runs, board):
    runs.add("there", protocol="shapes/v1-1k", dataset="shapes", shots=5)
    build_boards([runs.root], board)
    page = write_page(board)
    outline = parsed(page)
    sections = [a["data-dataset"] for a in outline.attributes("section")]
    assert sections == ["pascal5i", "shapes"]
    values = [a.get("data-value") for a in outline.attributes("button") if a.get("class") == "card"]
    assert values == ["", "pascal5i", "shapes"]
    assert [a["data-shots"] for a in outline.attributes("article")] == ["1", "1", "1", "5", "5"]
