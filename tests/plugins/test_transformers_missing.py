"""Methods of the transformers library where it is not installed."""

from __future__ import annotations

import importlib.util

import pytest

import fssbench
from fssbench import FssbenchError
from fssbench.cli import _run

METHODS = {"seggpt": "seggpt-vit-l", "clipseg": "clipseg-rd64", "clipseg-text": "clipseg-rd64"}


@pytest.fixture(autouse=True)
def _without_transformers(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "transformers" else real(name, *rest),
    )
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)  # an import fails


def test_the_methods_are_listed_and_shown(capsys):
    assert _run(["list", "matchers"]) == 0
    listed = capsys.readouterr().out
    for name, encoder in METHODS.items():
        assert name in listed
        assert _run(["show", "matcher", name]) == 0
        shown = capsys.readouterr().out
        assert "threshold" in shown or "embedding" in shown
        assert _run(["show", "backbone", encoder]) == 0


@pytest.mark.parametrize("name", METHODS)
def test_making_one_says_what_to_install(name):
    with pytest.raises(FssbenchError) as error:
        fssbench.image_matcher(name, weights="random")
    assert str(error.value).endswith(
        "needs transformers, not installed: pip install 'fssbench[transformers]'"
    )


@pytest.mark.parametrize("name", METHODS)
def test_evaluate_says_what_to_install(name, capsys):
    assert _run(["evaluate", name, "--weights", "random", "--limit", "1"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("fssbench: error: ")
    assert line.endswith("needs transformers, not installed: pip install 'fssbench[transformers]'")
