"""Fixtures of the tests of datasets."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for each test: here it matters what is built, and when."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FSSBENCH_CACHE", str(folder))
    return folder
