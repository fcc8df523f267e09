"""The page "Which interface does my method need?": its plugin runs."""

from __future__ import annotations

import pytest
from docs_pages import TINY, files, page, working_folder, write

from fssbench import registry
from fssbench.cli import _run
from fssbench.specs import MatcherSpec


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    with working_folder(tmp_path, monkeypatch) as empty:
        yield empty


def test_the_method_on_whole_images_runs(folder, capsys):
    ((name, text),) = files(page("choosing-an-interface")).items()
    write({name: text}, folder)
    spec = registry.use_plugins([name]).get(MatcherSpec, "mean-token")
    assert _run(["evaluate", spec.name, "-p", name, "--shots", "1,3", *TINY]) == 0
    assert "mean-token" in capsys.readouterr().out
