"""Tests of the completion of names in the shell."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete

from fssbench.cli import cli


def complete(*words: str) -> list[str]:
    """Return the completions of the last word."""
    shell = ShellComplete(cli, {}, "fssbench", "_FSSBENCH_COMPLETE")
    return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["eval"], "evaluate"),
        (["evaluate", "proto"], "prototype"),
        (["evaluate", "--backbone", "tiny-r"], "tiny-resnet"),
        (["evaluate", "--protocol", "pascal5i/v1-1"], "pascal5i/v1-1k"),
        (["evaluate", "--metrics", "iou,reg"], "iou,regions"),
        (["evaluate", "insid3", "--encoder", "encoder=tiny-v"], "encoder=tiny-vit"),
        (["predict", "--backbone", "tiny-r"], "tiny-resnet"),
        (["train", "dca"], "dcama"),
        (["train", "dcama", "--dataset", "coco20"], "coco20i"),
        (["train", "hdmnet", "--stage", "meta", "--recipe", "coco"], "coco20i"),
        (["train", "--recipe", "coco"], None),
        (["train", "hdmnet", "--stage", "m"], "meta"),
        (["train", "prototype", "--stage", ""], None),
        (["score", "RUN", "--metric", "iou,reg"], "iou,regions"),
        (["checkpoint", "import", "hsn"], "hsnet"),
        (["plugin", "check", "dca"], "dcama"),
        (["episodes", "build", "--protocol", "davis17/"], "davis17/v1"),
        (["data", "check", "fss"], "fss1000"),
        (["show", "sampler", "n-"], "n-way"),
        (["show", "schema", "rec"], None),
    ],
)
def test_names(words, expected):
    found = complete(*words)
    assert expected in found if expected else found == []
    assert all(value.startswith(words[-1]) for value in found)


NAMED = {"matcher", "protocol", "dataset", "stage", "recipe", "metrics", "encoders", "backbone"}


def commands(group):
    for name in group.list_commands(None):
        command = group.get_command(None, name)
        yield from commands(command) if isinstance(command, click.Group) else [command]


def test_all_parameters_with_names_have_a_completion():
    lacking = {
        f"{command.name} {parameter.name}"
        for command in commands(cli)
        for parameter in command.params
        if parameter.name in NAMED and parameter._custom_shell_complete is None
        if command.callback.__module__.startswith("fssbench.")
    }
    # The backbone of an imported record need not be registered.
    assert lacking == {"import backbone"}


def test_every_shell_imports_no_torch():
    """The script of a shell calls the command with these variables at every tab."""
    code = (
        "import sys, atexit\n"
        "from fssbench.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "main([])\n"
    )
    variables = {
        "_FSSBENCH_COMPLETE": "bash_complete",
        "COMP_WORDS": "fssbench evaluate --protocol shapes/v1",
        "COMP_CWORD": "3",
    }
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert "plain,shapes/v1-1k" in done.stdout.splitlines()
    assert done.stderr.split() == ["False"]
