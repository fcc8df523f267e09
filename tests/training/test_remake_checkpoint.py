"""Checkpoints of records made again by tools/remake_checkpoint.py."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import attrs
import pytest
import safetensors.torch

from fssbench.cli import _run
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import DIGEST, HEADER, digest, file_content
from fssbench.results.record import RECORD_FILE, Record

TOOL = Path(__file__).parents[2] / "tools" / "remake_checkpoint.py"
SMALL = ["-d", "images_per_split=60"]
HERE = ["--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("remake_checkpoint", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A record of a trained method, and its checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    assert _run([
        "train", "hsnet", "--steps", "2", "--batch-size", "2", "--validation-episodes", "0",
        *SMALL, *HERE, "--out", str(folder / "trainings"),
    ]) == 0  # fmt: skip
    (last,) = folder.rglob("last.safetensors")
    assert _run([
        "evaluate", "--checkpoint", str(last), "--fold", "0", "--limit", "2", *SMALL, *HERE,
        "--out", str(folder / "runs"),
    ]) == 0  # fmt: skip
    (record,) = folder.rglob(RECORD_FILE)
    return Record.read(record), last


@pytest.fixture
def remake(tool, tmp_path):
    """Function that makes the checkpoint of a record again, and its output."""

    def call(record, *options):
        record.write(tmp_path / "run")
        out = tmp_path / "out.safetensors"
        arguments = [tmp_path / "run", "--out", out, "--trainings", tmp_path / "again"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tool.torch, "set_num_threads", lambda count: None)
            tool.remake.main([*map(str, arguments), *SMALL, *options], standalone_mode=False)
        return out

    (tmp_path / "run").mkdir()
    return call


@pytest.mark.parametrize("entries", [(HEADER, DIGEST), (DIGEST, HEADER), (HEADER,)])
def test_the_file_of_another_version_is_made_again(trained, remake, entries):
    """The weights get the record's header in every form that a version of fssbench wrote."""
    record, last = trained
    header = json.loads(json.dumps(record.checkpoint.header))
    header["environment"] |= {"fssbench": "0.0.9", "commit": "0" * 40}
    tensors = safetensors.torch.load_file(last)
    text = json.dumps(header)
    metadata = {HEADER: text, DIGEST: digest(text, tensors.items())}
    content = file_content(tensors, {name: metadata[name] for name in entries})
    checkpoint = attrs.evolve(
        record.checkpoint, header=header, sha256=hashlib.sha256(content).hexdigest()
    )
    out = remake(attrs.evolve(record, checkpoint=checkpoint))
    assert out.read_bytes() == content != last.read_bytes()


def test_other_weights_are_refused_with_the_differences(trained, remake, tmp_path, capsys):
    record, _ = trained
    header = json.loads(json.dumps(record.checkpoint.header))
    header["environment"]["packages"]["torch"] = "2.0"
    checkpoint = attrs.evolve(record.checkpoint, header=header, sha256="0" * 64)
    with pytest.raises(SystemExit) as ended:
        remake(attrs.evolve(record, checkpoint=checkpoint))
    assert ended.value.code == 1
    assert not (tmp_path / "out.safetensors").exists()
    lines = capsys.readouterr().out.splitlines()
    (different,) = [line for line in lines if line.startswith("  ") and " -> " in line]
    assert different.startswith("  environment.packages.torch: 2.0 -> ")
    assert lines[-1].endswith("--protocol shapes/v1-1k --fold 0 --shots 1")


def test_a_record_without_such_a_training_is_refused(trained, remake):
    record, _ = trained
    header = record.checkpoint.header
    for changed, line in (
        (None, "was not trained by fssbench"),
        ({**header, "selected_on": "base"}, "validation selected its checkpoint"),
        ({**header, "init": {"name": "a", "sha256": "0"}}, "needs the previous stage's checkpoint"),
    ):
        checkpoint = changed and attrs.evolve(record.checkpoint, header=changed)
        with pytest.raises(FssbenchError, match=line):
            remake(attrs.evolve(record, checkpoint=checkpoint))
    with pytest.raises(FssbenchError, match="has no --init"):
        remake(record, "--init", "base.safetensors")
