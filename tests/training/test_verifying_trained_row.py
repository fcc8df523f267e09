"""Verification of a trained row as a stranger does it: a record and an address, no other file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from fssbench.cli import _run

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ["-d", "images_per_split=60", "--device", "cpu", "--workers", "0"]
ADDRESS = "hf://ann/hsnet-shapes/last.safetensors"


def test_a_stranger_verifies_a_trained_row(hub_here, tmp_path, capsys):
    """Another file at the same address fails with a line about its hash."""

    def author(*arguments: object) -> str:
        capsys.readouterr()
        assert _run([str(each) for each in arguments]) == 0
        return capsys.readouterr().out

    mine = tmp_path / "mine"
    training = author(
        "train", "hsnet", "--dataset", "shapes", "--steps", "2", "--validation-episodes", "0",
        *SMALL, "--json", "--out", mine / "trainings",
    )  # fmt: skip
    last = json.loads(training)["last"]
    author("evaluate", "--checkpoint", last, "--limit", "20", *SMALL, "--out", mine / "runs")
    author("checkpoint", "push", last, "--to", "hf://ann/hsnet-shapes")
    (run,) = (path.parent for path in mine.rglob("record.json"))
    theirs = tmp_path / "theirs"
    shutil.copytree(run, theirs / "record")
    shutil.rmtree(mine)

    code, out, err = verify(hub_here.address, theirs)
    assert code == 0, (out, err)
    assert "Measured again: 10 of 20 episodes" in out
    assert "The record stands." in out

    content = bytearray(hub_here.newest("models/ann/hsnet-shapes")["last.safetensors"])
    content[-1] ^= 1
    hub_here.commit("models/ann/hsnet-shapes", {"last.safetensors": bytes(content)})
    code, out, err = verify(hub_here.address, theirs)
    assert (code, out) == (2, ""), err
    (line,) = err.splitlines()
    assert f"--checkpoint {ADDRESS}: its sha256 is " in line
    assert "give the file that was evaluated" in line


def verify(endpoint: str, folder: Path) -> tuple[int, str, str]:
    """Run the command in a folder, with its own cache of the hub and without a token."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    environment |= {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "plugins")]),
    }
    done = subprocess.run(
        [
            sys.executable, "-m", "fssbench", "board", "verify", "record/record.json",
            "--episodes", "10", *SMALL, "--checkpoint", ADDRESS,
        ],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr
