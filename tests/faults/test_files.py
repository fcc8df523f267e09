"""One bit of a file is another one: what is read is the same, or it is one line of error."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping

import methods_for_tests
import pytest
import torch
from faults_for_tests import flipped
from parsers_for_fuzz import MANIFEST, RECORD, ROWS
from records_for_tests import change_record, digest_of

from fssbench import FssbenchError, Manifest, Record, backbone, strict
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.results.rows import read_rows, write_rows
from fssbench.training.checkpoint_writer import STATE_FILE, TrainingDirectory, read_state

FLIPS = 150


def learner():
    encoder = backbone("pixels")
    made = methods_for_tests.Learner(
        config=methods_for_tests.LearnerConfig(), backbone=encoder.info
    )
    made.bias.data.copy_(torch.arange(4.0))
    return made


def write_a_checkpoint(path):
    header = {"matcher": "learner", "backbone": "pixels", "config": {"width": 4}, "fold": 0}
    write_checkpoint(path, learner(), header, {"stem": torch.randn(3, 3)})


def checkpoint_of(path):
    found = read_checkpoint(path)
    return {**found.header, **found.weights}


def a_record():
    return strict.structure(RECORD, Record)


def write_a_state(path):
    generator = torch.Generator().manual_seed(0)
    TrainingDirectory(path.parent, {}).save(
        {"step": 3, "model": {"w": torch.randn(40, generator=generator)}, "scores": [0.5]}
    )


KINDS = {
    "manifest.jsonl.gz": (MANIFEST.write, Manifest.read),
    "rows.csv.gz": (lambda path: write_rows(ROWS, path), read_rows),
    "a.safetensors": (write_a_checkpoint, checkpoint_of),
    "record.json": (lambda path: a_record().write(path.parent), Record.read),
    STATE_FILE: (write_a_state, lambda path: read_state(path.parent)),
}


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return first.equals(second) if hasattr(first, "equals") else first == second


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit_changes_nothing_that_is_believed(name, tmp_path):
    path = tmp_path / name
    write, read = KINDS[name]
    write(path)
    whole, expected = path.read_bytes(), read(path)
    generator, errors = random.Random(3), 0
    for _ in range(FLIPS):
        path.write_bytes(flipped(whole, generator.randrange(8 * len(whole))))
        try:
            found = read(path)
        except FssbenchError:
            errors += 1
        else:
            assert same(found, expected)
    assert errors > FLIPS // 4  # the others are in what no reader looks at: padding, dates


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_is_cut_off(name, tmp_path):
    path = tmp_path / name
    write, read = KINDS[name]
    write(path)
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(FssbenchError) as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_digit_that_became_another(tmp_path):
    """50.5 and 90.5 are both numbers that a record may hold."""
    path = a_record().write(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"50.5", b"90.5"))
    told = "the content does not fit its digest, .*; copy the file again, or remove its folder"
    with pytest.raises(FssbenchError, match=told) as caught:
        Record.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_digest_of_a_record_can_be_made_by_anybody(tmp_path):
    """It is of the JSON alone, and so holds for fields that later versions add."""
    path = a_record().write(tmp_path)
    fields = json.loads(path.read_text())
    assert fields.pop("digest") == digest_of(fields)
    change_record(tmp_path, "of_a_later_version", value=[1, {"10": 1, "9": None}])
    assert Record.read(path) == a_record()


def test_a_checkpoint_without_a_digest_is_of_an_older_version(tmp_path, monkeypatch):
    from fssbench.matchers import checkpoint

    monkeypatch.setattr(checkpoint, "DIGEST", "unknown")
    write_a_checkpoint(tmp_path / "old.safetensors")
    monkeypatch.undo()
    assert torch.equal(checkpoint_of(tmp_path / "old.safetensors")["bias"], torch.arange(4.0))


@pytest.mark.parametrize(
    "change",
    [{"config": []}, {"matcher": ["x"]}, {"backbone": None}, {"fold": "0"}, {"dataset": 3}],
)
def test_a_header_of_a_stranger(tmp_path, change):
    header = {"matcher": "learner", "backbone": "pixels", "config": {}, **change}
    write_checkpoint(tmp_path / "a.safetensors", learner(), header)
    with pytest.raises(FssbenchError, match="this is no checkpoint of fssbench"):
        read_checkpoint(tmp_path / "a.safetensors")
