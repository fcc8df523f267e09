"""The notebook runs from an empty folder."""

from __future__ import annotations

import importlib.util
import json

import pandas as pd
from docs_pages import DOCS
from PIL import Image

import fssbench

NOTEBOOK = DOCS / "first-evaluation.ipynb"
QUICK = ["--fold", "0,1", "--limit", "20", "-d", "images_per_split=100", "--workers", "0"]


def quick_notebook():
    """Return the notebook with a smaller evaluation in it."""
    notebook = json.loads(NOTEBOOK.read_text())
    command = '"--panels", "2"]'
    (cell,) = (each for each in notebook["cells"] if command in "".join(each["source"]))
    more = ", ".join(json.dumps(word) for word in QUICK)
    cell["source"] = "".join(cell["source"]).replace(command, f'"--panels", "2", {more}]')
    return notebook


def code_cells(notebook):
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def test_cells_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    notebook = quick_notebook()
    for source in code_cells(notebook):
        exec(compile(source, NOTEBOOK.name, "exec"), names)
    records = names["records"]
    assert list(records["fold"]) == [0, 1]
    assert names["record"].scores["miou"] == records["miou"][0]
    assert isinstance(names["rows"], pd.DataFrame)
    assert len(names["panels"]) == 2
    with Image.open(names["panels"][0]) as panel:
        assert panel.width > panel.height
    assert "<table" in fssbench.load_boards("runs")._repr_html_()
    if importlib.util.find_spec("nbclient") and importlib.util.find_spec("ipykernel"):
        import nbclient
        import nbformat

        made = nbformat.from_dict(notebook)
        nbclient.execute(made)
        shown = [output for cell in made.cells for output in cell.get("outputs", ())]
        assert any("image/png" in output.get("data", {}) for output in shown)


def test_the_notebook_is_committed_without_outputs():
    notebook = json.loads(NOTEBOOK.read_text())
    assert notebook["nbformat"] == 4
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(cell.get("outputs") for cell in notebook["cells"])
