"""The JSON Schema of records: fresh, of the code, and true of what fssbench writes."""

from __future__ import annotations

import copy
import json

import attrs
import pytest
from docs_pages import DOCS, REPOSITORY
from jsonschema import Draft202012Validator

from fssbench.cli import _run
from fssbench.results.record import Record
from fssbench.results.schema import record_schema

RECORDS = sorted((REPOSITORY / "leaderboards" / "results").rglob("record.json"))


@pytest.fixture(scope="module")
def validator():
    Draft202012Validator.check_schema(record_schema())
    return Draft202012Validator(record_schema())


@pytest.fixture
def fields():
    """A record of a trained method."""
    records = (json.loads(path.read_text()) for path in RECORDS)
    return copy.deepcopy(next(record for record in records if record["checkpoint"]))


def test_the_committed_file_is_fresh(capsys):
    assert _run(["show", "schema", "record"]) == 0
    committed = (DOCS / "record.schema.json").read_text()
    hint = "write it anew: fssbench show schema record > docs/record.schema.json"
    assert capsys.readouterr().out == committed, hint


def test_all_committed_records_are_valid(validator):
    assert len(RECORDS) > 100
    for path in RECORDS:
        validator.validate(json.loads(path.read_text()))


def test_what_is_written_now_is_valid(validator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["-d", "images_per_split=60", "--limit", "10", "--workers", "0"]
    assert _run(["evaluate", "--backbone", "filterbank", "--fold", "0", *small]) == 0
    (path,) = tmp_path.glob("runs/*/*/*/record.json")
    written = json.loads(path.read_text())
    validator.validate(written)
    assert list(written) == list(record_schema()["properties"])


def test_every_field_is_described_and_what_record_requires_is_required():
    schema = record_schema()
    for name, field in attrs.fields_dict(Record).items():
        assert schema["properties"][name].get("description"), name
        expected = field.default is attrs.NOTHING or name == "schema"
        assert (name in schema["required"]) == expected, name
    assert schema["$defs"]["ManifestInfo"]["properties"]["limit"]["anyOf"] == [
        {"type": "integer"},
        {"type": "null"},
    ]
    assert "None" not in json.dumps(schema)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 2),
        (("fold",), "0"),
        (("fold",), 0.5),
        (("surprise",), 1),
        (("checkpoint",), "last.safetensors"),
        (("dataset", "path"), "somewhere"),
        (("manifest", "classes"), ["cat"]),
        (("scores", "miou"), "57"),
        (("intervals", "miou"), [1.0]),
        (("intervals", "miou"), [1.0, 2.0, 3.0]),
        (("per_class", 0), {"class_id": 0}),
        (("cost", "flops_per_episode"), 1.5),
    ],
)
def test_wrong_values_are_refused(validator, fields, place, value):
    assert not list(validator.iter_errors(fields))
    inner = fields
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert list(validator.iter_errors(fields))


@pytest.mark.parametrize("name", ["protocol", "checkpoint", "schema"])
def test_missing_fields_are_refused(validator, fields, name):
    del fields[name]
    assert list(validator.iter_errors(fields))


def test_an_unknown_schema_is_one_line(capsys):
    assert _run(["show", "schema", "recrd"]) == 2
    told = capsys.readouterr().err
    assert "no schema is called 'recrd'; did you mean 'record'? there are: record" in told
