"""Memory: how much there is, how much may be used, and how sizes are written."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from fssbench.errors import FssbenchError

SHARE = 4
"""One part in so many of a device's memory is what features may take by default."""

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_FALLBACK = 8 << 30


def parse_size(text: str, option: str) -> int:
    """Bytes: ``4G``, ``512M``, ``1.5GiB`` or a plain number; powers of 1024.

    Raises:
        FssbenchError: it is no size; the message names the option.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise FssbenchError(f"{option} {text}: write a size like 512M or 4G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def device_memory(device: torch.device) -> int:
    """Bytes of a GPU, or of this machine (or of its container, where that has a limit)."""
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
    """Bytes that features may take where nobody says how many."""
    return device_memory(device) // SHARE
