"""The command line in a process of its own, for tests of training."""

from __future__ import annotations

import os
import subprocess
import sys

import methods_for_tests
import program
import trainable_for_tests


def command(job) -> list[str]:
    """The command that does a job of `Training`, as far as tests change it."""
    return [
        "train", job.matcher, "--stage", job.stage, "-d", "images_per_split=60",
        "--device", "cpu", "--workers", "0", "--validation-episodes", str(job.validation_episodes),
        "--out", str(job.out), "-p", methods_for_tests.__file__, "-p", trainable_for_tests.__file__,
    ]  # fmt: skip


def command_line(*arguments: str, start=()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    if not start:
        return program.run(*arguments, env=environment)
    return subprocess.run(
        [sys.executable, *start, *arguments],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
