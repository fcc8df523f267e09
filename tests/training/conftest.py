"""Trainings that take a second: small shapes, a backbone of mean colours, ten steps."""

from __future__ import annotations

import functools

import methods_for_tests
import pytest
import trainable_for_tests

from fssbench import Training, registry
from fssbench.data.shapes import shapes
from fssbench.training import metrics

SCENE = functools.cache(shapes._scene.__wrapped__)
PLUGINS = (methods_for_tests.__file__, trainable_for_tests.__file__)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("shared-cache")


@pytest.fixture(autouse=True)
def cache_folder(shared_cache, monkeypatch):
    """One cache for all tests here: the index of the small shapes is built once."""
    monkeypatch.setenv("FSSBENCH_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture(autouse=True)
def plugins():
    """The test methods are registered, and gone afterwards."""
    trainable_for_tests.Meta.calls = 0
    yield registry.use_plugins(PLUGINS)
    registry.use_plugins([])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Cache scenes and write no event files: both take longer than the steps."""
    monkeypatch.setattr(shapes, "_scene", SCENE)
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def job(tmp_path):
    """Two epochs of five steps, 20 validation episodes after each."""
    return Training(
        matcher="trainable",
        stage="meta",
        data_options={"images_per_split": "60"},
        device="cpu",
        workers=0,
        validation_episodes=20,
        out=tmp_path / "trainings",
    )
