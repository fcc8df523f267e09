"""The one fixture that registers plugins for a test, and forgets them afterwards."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from fssbench import registry


def registered(*modules: ModuleType) -> Any:
    """A fixture, to be called ``plugin``, in which each test of its place has these plugins.

    Args:
        modules: test modules that are plugins.
    """

    @pytest.fixture(autouse=True)
    def plugin():
        yield registry.use_plugins([str(module.__file__) for module in modules])
        registry.use_plugins([])

    return plugin
