"""Description of the software and hardware of an evaluation."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

import torch

from fssbench._version import __version__
from fssbench.runtime.git import git

PACKAGES = ("torchvision", "timm", "numpy", "pandas", "pillow", "pycocotools", "pluggy")


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, source commit and hardware, without paths, host names or user names."""
    return {
        "fssbench": __version__,
        **source_state(),
        "python": platform.python_version(),
        "packages": {
            "torch": torch.__version__,  # includes the build: 2.9.0+cu128
            **{name: version for name in PACKAGES if (version := _version(name))},
        },
        "system": f"{platform.system()} {platform.machine()}",
        "device": device.type,
        "hardware": _hardware(device),
        "threads": torch.get_num_threads(),
    }


def source_state() -> dict[str, Any]:
    """Return the Git commit of the fssbench source and its dirty flag; empty outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists() or (commit := git(folder, "rev-parse", "HEAD")) is None:
        return {}
    changed = git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changed)}


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text()
        if found := re.search(r"^model name[^:\n]*:(.*)$", text, re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()
