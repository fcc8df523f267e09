"""Tests of the commands in docs/tutorial.md."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fssbench import registry
from fssbench.cli import _run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"
INIT = "fssbench-demo/fssbench_demo/__init__.py"
SMALL = {
    "train": "-d images_per_split=60 --steps 4 --batch-size 4 --validation-episodes 10 --workers 0",
    "evaluate": "-d images_per_split=60 --limit 20 --workers 0",
}


def commands() -> list[str]:
    return re.findall(r"^\$ (.+)$", PAGE.read_text(), re.MULTILINE)


def test_six_commands_are_enough():
    lines = commands()
    assert len(lines) <= 6
    assert lines[0] == "fssbench plugin new demo"
    assert lines[-1].startswith("fssbench board build ")


@pytest.mark.slow
def test_they_end_in_a_row(tmp_path, monkeypatch, capsys):
    """The commands run with few images and steps, and without an installation."""
    monkeypatch.chdir(tmp_path)
    for line in commands():
        program, *arguments = shlex.split(line)
        if program == "pip":
            monkeypatch.setenv("FSSBENCH_PLUGINS", INIT)
            registry.use_plugins([])
            continue
        if arguments[:2] == ["plugin", "check"]:
            arguments[2] = INIT  # a plugin that is not installed is named by its file
        if arguments[0] == "evaluate":
            (checkpoint,) = tmp_path.glob("trainings/*/*/*/best.safetensors")
            arguments[arguments.index("--checkpoint") + 1] = str(checkpoint)
        small = shlex.split(SMALL.get(arguments[0], ""))
        assert _run([*arguments, *small]) == 0, capsys.readouterr().err
    (page,) = tmp_path.glob("boards/shapes*.md")
    assert "demo" in page.read_text()
    monkeypatch.delenv("FSSBENCH_PLUGINS")
    registry.use_plugins([])
