"""Memory of devices, default memory limits, and the notation of sizes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from fssbench.errors import FssbenchError

SHARE = 4
"""Divisor of a device's memory that gives the default limit of the feature cache."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_FALLBACK = 8 << 30


def parse_size(text: str, option: str) -> int:
    """Parse a size in bytes: ``4G``, ``512M``, ``1.5GiB`` or a plain number; powers of 1024.

    Raises:
        FssbenchError: the text is not a size; the message names the option.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise FssbenchError(f"{option} {text}: write a size like 512M or 4G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def device_memory(device: torch.device) -> int:
    """Return the memory in bytes of a GPU, or of this machine (or the limit of its container)."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return _FALLBACK
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def default_budget(device: torch.device) -> int:
    """Return the default limit in bytes of the feature cache."""
    return device_memory(device) // SHARE
