"""Answers of git about a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

_TIMEOUT = 10.0  # seconds; a repository on a slow disk must not stop an evaluation


def git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command in a folder, or None if it fails or git is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=_TIMEOUT, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
