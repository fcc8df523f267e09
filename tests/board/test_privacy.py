"""Detection of private data, without false positives."""

import json
from pathlib import Path

import attrs
import pytest
from records_for_tests import change_record

from fssbench.board.board import build_boards
from fssbench.board.check import check_boards
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.results.privacy import private_facts, private_problems

REPOSITORY = Path(__file__).resolve().parents[2]


def found(environment: object, names: tuple[str, ...] = ()) -> list[str]:
    return list(private_facts({"environment": environment}, names))


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("ghp_" + "a1B2" * 9, "access token"),
        ("x hf_" + "AbCdEfGhIj" * 3, "access token"),
        ("key=sk-" + "a" * 30, "access token"),
        ("AKIA" + "ABCD1234" * 2, "access token"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "access token"),
        ("https://me:secret@example.org/simple", "an address with a password"),
        ("data in /home/somebody/voc", "a path of a machine"),
        ("root=/mnt/disk/voc", "a path of a machine"),
        ("see ~/notes/x", "a path of a machine"),
        ("see C:\\Users\\me", "a path of a machine"),
        ("run file:///x", "a path of a machine"),
        ("somebody@cluster7", "a user at a host"),
        ("on gpu-17.cluster.local", "a host name"),
        ("10.0.12.7", "a network address"),
        ("AMD EPYC on kestrel", "the name of this user or this machine"),
    ],
)
def test_private_values_of_an_environment(value, what):
    (line,) = found({"device": "cpu", "extra": [{"more": value}]}, ("kestrel",))
    assert line.startswith("environment.extra[0].more holds ")
    assert what in line
    assert value not in line


@pytest.mark.parametrize(
    "key", ["HF_TOKEN", "api_key", "wandb-secret", "password", "user", "hostname", "home", "email"]
)
def test_keys_that_ask_for_a_secret(key):
    (line,) = found({key: "x"})
    assert line.startswith(f"environment.{key} holds ")
    assert line.partition(";")[0].endswith("by its name")
    assert found({key: ""}) == []


def test_a_training_has_an_environment_too():
    record = {"checkpoint": {"header": {"environment": {"hostname": "a"}, "out": "/scratch/me/x"}}}
    assert [line.partition(" holds")[0] for line in private_facts(record)] == [
        "checkpoint.header.environment.hostname",
        "checkpoint.header.out",
    ]


def test_keys_are_text_of_a_record_too():
    (line,) = private_facts({"config": {"/home/me/x": 1}})
    assert "a key of config" in line
    assert "me/x" not in line


def test_what_is_public_is_no_secret():
    environment = {
        "fssbench": "0.1.0",
        "commit": "3d91b79bc8ff592fdb932464dff8fc1bb3a9c873",
        "packages": {"torch": "2.15.0+cu132", "opencv": "4.10.0.84", "tokenizers": "0.20.1"},
        "system": "Linux x86_64",
        "hardware": "Intel(R) Xeon(R) CPU @ 2.20GHz and/or NVIDIA H200, CUDA 13.2",
        "threads": 4,
        "dirty": True,
        "device": "root",
    }
    config = {"tokens": 4, "class_token": "mean", "ratio": "1/2 and 3/4", "about": "~3/4 of it",
              "paper": "https://example.org/papers/x.pdf"}  # fmt: skip
    assert not list(private_facts({"environment": environment, "config": config}, ("root", "ai")))


def test_the_committed_results_hold_nothing_private():
    records = sorted((REPOSITORY / "leaderboards").rglob("record.json"))
    assert records
    for path in records:
        assert not list(private_facts(json.loads(path.read_bytes()))), path


def test_boards_neither_take_nor_keep_what_is_private(runs, tmp_path):
    out = tmp_path / "boards"
    with pytest.raises(FssbenchError, match=r"record\.json: environment\.user holds"):
        build_boards([runs.add(environment={"user": "someone", "precision": "fp32"})], out)
    assert not out.exists()
    build_boards([runs.add(fold=1)], out)
    (record,) = out.rglob("record.json")
    change_record(record.parent, "environment", "note", value="made at someone@cluster7")
    (problem,) = check_boards(out)
    assert "environment.note holds a mail address, or a user at a host" in problem


def test_images_named_by_paths(runs):
    folder = runs.add()
    there = Manifest.read(folder / "manifest.jsonl.gz")
    assert private_problems(folder) == []
    episodes = [attrs.evolve(e, query=f"/data/me/{e.query}.jpg") for e in there.episodes]
    attrs.evolve(there, episodes=tuple(episodes)).write(folder / "manifest.jsonl.gz")
    (problem,) = private_problems(folder)
    assert "image ids are paths of a machine" in problem
