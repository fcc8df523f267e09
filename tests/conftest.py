"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch is imported, here or in a process that a test starts: several test processes with
# several threads each wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FSSBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def shared_data() -> Path:
    """The small sets of real images beside the checkout; the test skips where they are not."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "voc_mini").is_dir():
        pytest.skip("no real images beside the checkout (../shared/data)")
    return folder
