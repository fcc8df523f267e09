"""Tests of the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fssbench import registry
from fssbench.cli import _run

README = Path(__file__).parents[1] / "README.md"


def test_the_plugin_of_the_readme_works_and_is_short(tmp_path, monkeypatch, capsys):
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        if "fssbench_matchers" in block
    )
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    monkeypatch.chdir(tmp_path)
    Path("nearest.py").write_text(code)
    arguments = ["evaluate", "nearest", "-p", "nearest.py", "--fold", "0", "--limit", "20"]
    try:
        assert _run([*arguments, "-d", "images_per_split=100", "--workers", "0"]) == 0
    finally:
        registry.use_plugins([])
    assert "nearest on tiny-resnet" in capsys.readouterr().out


def test_files_that_the_readme_links_to_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (README.parent / link).exists(), link


def test_commands_of_the_readme_are_understood():
    """Every option in a console block exists."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "$ fssbench" in line]
    assert len(lines) >= 8
    for line in lines:
        verb = re.search(r"\$ fssbench (\w+(?: (?:build|check))?)", line)
        assert verb, line
        options = set(re.findall(r"(?<= )--?[a-z-]+", line.partition("#")[0]))
        for option in options - {"-p"}:
            assert _knows(verb[1].split(), option), line


def _knows(path, option):
    import click

    from fssbench.cli import cli

    command: click.Command = cli
    for name in path:
        found = command.get_command(click.Context(command), name)  # type: ignore[attr-defined]
        if found is None:
            pytest.fail(f"no verb {path}")
        command = found
    return any(option in parameter.opts for parameter in command.params)
