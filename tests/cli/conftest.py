"""Fixture that unloads the plugins of a test."""

from __future__ import annotations

import pytest

from fssbench import registry


@pytest.fixture(autouse=True)
def fresh_plugins():
    yield
    registry.use_plugins([])
