"""Citations of registered objects and of records."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from records_for_tests import change_record

from fssbench import Evaluation, registry
from fssbench.cli import _run
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluate import evaluate
from fssbench.results.citations import bibtex
from fssbench.specs import BackboneSpec, DatasetSpec, MatcherSpec

ROOT = Path(__file__).resolve().parents[2]


def parse(text: str) -> dict[str, dict[str, str]]:
    """Parse BibTeX strictly: entries of ``name = {value}`` fields with balanced braces."""
    entries = {}
    place = 0

    def expect(pattern: str) -> re.Match[str]:
        nonlocal place
        match = re.compile(pattern).match(text, place)
        assert match, f"{pattern} expected at {text[place : place + 60]!r}"
        place = match.end()
        return match

    expect(r"\s*")
    while place < len(text):
        kind, key = expect(r"@(article|inproceedings|misc|software)\{([a-z0-9]+),\s*").groups()
        assert key not in entries
        fields = {"type": kind}
        while text[place] != "}":
            name = expect(r"([a-z]+)\s*=\s*\{")[1]
            start, depth = place, 1
            while depth:
                depth += {"{": 1, "}": -1}.get(text[place], 0)
                place += 1
            assert name not in fields
            fields[name] = text[start : place - 1]
            expect(r",?\s*")
        expect(r"\}\s*")
        entries[key] = fields
    return entries


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    (result,) = evaluate(
        Evaluation(backbone="filterbank", folds=(0,), limit=2, workers=0, device="cpu", out=out,
                   data_options={"images_per_split": 100})
    )  # fmt: skip
    return result.folder


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made, tmp_path / "finished")


def cite(capsys, *paths: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    assert _run(["cite", *map(str, paths)]) == 0
    out, err = capsys.readouterr()
    return parse(out), err.splitlines()


@pytest.mark.parametrize(
    "file", [*(ROOT / "plugins").glob("*/references.bib"), ROOT / "fssbench" / "references.bib"],
    ids=lambda path: path.parent.name,
)  # fmt: skip
def test_every_entry_is_valid_and_cited(file):
    entries = parse(re.sub(r"^%.*\n", "", file.read_text(), flags=re.MULTILINE))
    known = registry.registry()
    texts = {each for cls in registry.KINDS.values() for s in known.specs(cls).values()
             for each in s.cite} | {"fssbench:wightman2019timm"}  # fmt: skip
    assert entries
    for key, fields in entries.items():
        assert f"{file.parent.name}:{key}" in texts
        assert {"author", "title", "year"} <= set(fields)
        assert fields["year"] in key
        assert {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}[
            fields["type"]
        ] in fields


@pytest.mark.parametrize("kind", [DatasetSpec, MatcherSpec, BackboneSpec])
def test_everything_with_a_paper_is_cited(kind):
    for spec in registry.registry().specs(kind).values():
        assert bool(bibtex(spec)) == bool(spec.paper), spec.name
        if spec.paper:
            year = re.findall(r"\b(?:19|20)\d\d\b(?!\.\d)", spec.paper)
            years = {parse(text)[key]["year"] for key, text in bibtex(spec).items()}
            assert not year or year[-1] in years | {"2017"}, spec.name


def test_a_record_of_several_encoders(finished, capsys):
    change_record(finished, "dataset", "name", value="pascal5i")
    change_record(finished, "protocol", value="pascal5i/hsnet-1k")
    change_record(finished, "matcher", value="gf-sam")
    encoder = {"weights": {"source": "pretrained"}, "parameters": 1}
    encoders = {"features": {"name": "dinov2-l", **encoder},
                "masks": {"name": "promptable-sam-vit-h", **encoder}}  # fmt: skip
    change_record(finished, "encoders", value=encoders)
    entries, notes = cite(capsys, finished / "record.json")
    assert not notes
    # Datasets, protocols, methods, encoders, fssbench.
    assert list(entries) == [
        "everingham2010voc", "hariharan2011sbd", "shaban2017oneshot", "min2021hsnet",
        "zhang2024gfsam", "oquab2024dinov2", "kirillov2023sam", "fssbench",
    ]  # fmt: skip


def test_a_board_prints_each_entry_once(finished, capsys):
    other = shutil.copytree(finished, finished.parent / "other")
    change_record(other, "environment", "fssbench", value="0.0.9")
    change_record(other, "backbone", value="resnet50")
    header = {"dataset": "coco20i"}
    checkpoint = {"name": "x.safetensors", "sha256": "0" * 64, "header": header}
    change_record(other, "checkpoint", value=checkpoint)
    entries, notes = cite(capsys, finished.parent)
    assert not notes
    assert sorted(entries) == [
        "fssbench", "he2016resnet", "lin2014coco", "nguyen2019boosting", "wang2019panet",
    ]  # fmt: skip
    version = json.loads((finished / "record.json").read_text())["environment"]["fssbench"]
    assert entries["fssbench"]["version"] == f"0.0.9, {version}"


def test_own_data_is_noted(finished, capsys):
    change_record(finished, "dataset", "name", value="my-mugs")
    _, notes = cite(capsys, finished)
    assert notes == [
        "fssbench: no citation of dataset 'my-mugs': not registered; cite its source if it is your "
        "own data, else install its plugin, or load it with -p"
    ]


def test_an_unknown_method_is_noted_and_the_rest_cited(finished, capsys):
    change_record(finished, "matcher", value="nobody-has-it")
    change_record(finished, "environment", "fssbench", value="1}, evil = {")
    entries, notes = cite(capsys, finished)
    assert list(entries) == ["fssbench"]
    assert "evil" not in entries["fssbench"]
    assert notes == [
        "fssbench: no citation of matcher 'nobody-has-it': not registered; install its plugin, or "
        "load it with -p"
    ]


def test_the_own_entry_agrees_with_citation_cff(finished, capsys):
    text = (ROOT / "CITATION.cff").read_text()
    own = cite(capsys, finished)[0]["fssbench"]
    title, abstract, name = (
        re.search(rf"^ *-? *{field}: (.*?)\.?$", text, re.MULTILINE)[1]
        for field in ("title", "abstract", "name")
    )
    assert own["title"] == f"{title}: {abstract}"
    assert own["author"] == f"{{{name}}}"


PLUGIN = """
from fssbench import MatcherSpec

def fssbench_matchers():
    return [MatcherSpec(name="cited", summary="s", cite={cite!r},
                        factory="fssbench.matchers.prototype:Prototype",
                        config="fssbench.matchers.prototype:PrototypeConfig")]
"""


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def write(name: str, bib: str, cite: object) -> str:
        (tmp_path / f"{name}.py").write_text(PLUGIN.format(cite=cite))
        (tmp_path / "references.bib").write_text(bib)
        monkeypatch.delitem(sys.modules, name, raising=False)  # of an earlier test
        registry.use_plugins([name])
        return name

    yield write
    registry.use_plugins([])


def test_a_plugin_gives_its_own_entries(given, finished, capsys):
    name = given("cited_a", "@misc{doe2026, title = {A {B} @c}, year = {2026}}\n",
                  ("cited_a:doe2026", "fssbench:lin2014coco"))  # fmt: skip
    change_record(finished, "matcher", value="cited")
    assert list(cite(capsys, finished)[0]) == ["doe2026", "lin2014coco", "fssbench"]
    assert _run(["show", "matcher", "cited", "-p", name]) == 0
    assert "@misc{doe2026, title = {A {B} @c}, year = {2026}}" in capsys.readouterr().out


def test_a_plugin_without_citation_is_noted(given, finished, capsys):
    given("cited_b", "", ())
    change_record(finished, "matcher", value="cited")
    notes = cite(capsys, finished)[1]
    assert notes == ["fssbench: no citation of matcher 'cited': its plugin cited_b gives none"]


@pytest.mark.parametrize(
    ("bib", "message"),
    [
        ("@misc{doe2025, year = {2025}}", "no entry 'doe2026', which cited cites.*there: doe2025"),
        ("@misc{doe2026, year = {2026}", "the entry 'doe2026' has no closing brace"),
    ],
)
def test_a_wrong_file_of_a_plugin(given, bib, message, capsys):
    given("cited_c", bib, ("cited_c:doe2026",))
    spec = registry.registry().get(MatcherSpec, "cited")
    with pytest.raises(FssbenchError, match=rf"references\.bib: {message}"):
        bibtex(spec)
    assert _run(["plugin", "check", "cited_c", "--json"]) == 1
    checked = json.loads(capsys.readouterr().out)
    outcomes = {o["check"]: o for each in checked for o in each["outcomes"]}
    assert outcomes["citations"]["verdict"] == "failed"


def test_a_missing_file_of_a_plugin(given, tmp_path):
    given("cited_d", "", ("cited_d:doe2026",))
    (tmp_path / "references.bib").unlink()
    with pytest.raises(FssbenchError, match="cannot read these BibTeX entries"):
        bibtex(registry.registry().get(MatcherSpec, "cited"))


@pytest.mark.parametrize("value", ["fssbench:he2016resnet", ("he2016resnet",), ("a:b c",)])
def test_cite_is_a_tuple_of_package_and_key(value):
    with pytest.raises(ValueError, match=r"cite .*: write \('package:key', …\)"):
        MatcherSpec(name="x", summary="s", cite=value)


def test_list_and_show_print_licence_and_citation(capsys):
    assert _run(["list", "datasets"]) == 0
    assert "ICCV 2019; licence: CC-BY-4.0 (annotations)" in capsys.readouterr().out
    assert _run(["show", "dataset", "coco20i"]) == 0
    out = capsys.readouterr().out
    assert "licence: CC-BY-4.0 (annotations), Flickr's terms of use (images)" in out
    assert list(parse(out[out.index("@") :])) == ["lin2014coco", "nguyen2019boosting"]
    assert _run(["show", "dataset", "coco20i", "--json"]) == 0
    assert "nguyen2019boosting" in json.loads(capsys.readouterr().out)["bibtex"]
