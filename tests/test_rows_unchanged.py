"""Rows of every bundled method, as they were before the code was last moved.

The rows beside this file were written by this module (``python tests/test_rows_unchanged.py``) at
commit 61e7b74. Moving code must not change one of them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pandas
import pytest
import torch

import fssbench
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.matchers.matcher import config_of

FILE = Path(__file__).parent / "rows_unchanged.json"
CELLS = {
    f"{matcher}-{shots}shot": (matcher, backbone, shots)
    for matcher, backbone in {
        "prototype": "tiny-resnet",
        "dcama": "tiny-resnet",
        "hdmnet": "tiny-resnet",
        "fsdino": "tiny-vit",
        "uinofss": "tiny-vit",
    }.items()
    for shots in (1, 5)
}

# Options that had these values when the rows were written, and have other defaults since then.
OPTIONS = {
    "fsdino": {"volume": "cosine", "support": "foreground"},
    "uinofss": {"norm": "last", "mask": "share"},
}

# Added to the background's bias: half of the pixels are then foreground.
BIASES = {
    "dcama": ("mixer.2.2.bias", 0.034),
    "hdmnet": ("decoder.classify.4.bias", 0.013),
}


def platform():
    """What the last bit of a float may depend on."""
    return {
        "torch": torch.__version__.partition("+")[0],
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def checkpoint_of(matcher, backbone, folder):
    """A checkpoint with random weights of a fixed seed, whose masks are neither empty nor full."""
    torch.manual_seed(0)
    model = fssbench.matcher(matcher, backbone, **OPTIONS.get(matcher, {}))
    if matcher in BIASES:
        name, value = BIASES[matcher]
        with torch.no_grad():
            model.get_parameter(name)[0] += value
    header = {"matcher": matcher, "config": config_of(model), "backbone": backbone}
    write_checkpoint(folder / "random.safetensors", model, header)
    return folder / "random.safetensors"


def rows_of(cell, folder, episodes=40):
    """Integer rows of the first episodes of `shapes`, fold 0."""
    matcher, backbone, shots = CELLS[cell]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if matcher == "prototype":
            names = {"matcher": matcher, "backbone": backbone}
        else:
            names = {"checkpoint": checkpoint_of(matcher, backbone, folder)}
        (outcome,) = fssbench.evaluate(
            **names, folds=(0,), shots=(shots,), limit=episodes, workers=0, out=folder / "runs"
        )
    finally:
        torch.set_num_threads(threads)
    return pandas.read_csv(outcome.folder / "rows.csv.gz", dtype={"query": str})


SLOW = ("fsdino-5shot", "hdmnet-5shot", "uinofss-1shot", "uinofss-5shot")
# Number of the 40 episodes that a test measures, instead of 20.
TESTED = {"uinofss-5shot": 8}
# Pixels by which counts may differ since UINO-FSS multiplies no block-diagonal zeros.
ROUNDED = {"uinofss-5shot": 2}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "cell", [pytest.param(c, marks=pytest.mark.slow if c in SLOW else ()) for c in CELLS]
)
def test_rows_are_as_before(cell, tmp_path):
    before = json.loads(FILE.read_text())
    expected = before["rows"][cell]
    rows = rows_of(cell, tmp_path, TESTED.get(cell, 20))
    assert list(rows.columns) == expected["columns"]
    table = pandas.DataFrame(expected["rows"], columns=expected["columns"])[: len(rows)]
    assert len(rows) == TESTED.get(cell, 20)
    for column in ("index", "class_id", "query"):
        assert rows[column].tolist() == table[column].tolist()
    counts = [c for c in table.columns if c not in ("index", "class_id", "query")]
    apart = (rows[counts] - table[counts]).abs().max().max()
    # Elsewhere a logit may fall on the other side of 0: one pixel in a thousand at most.
    assert apart <= (ROUNDED.get(cell, 0) if platform() == before["platform"] else 65)


if __name__ == "__main__":
    content = {"platform": platform(), "rows": {}}
    for cell in CELLS:
        with tempfile.TemporaryDirectory() as out:
            rows = rows_of(cell, Path(out))
        content["rows"][cell] = {"columns": list(rows.columns), "rows": rows.values.tolist()}
    FILE.write_text(json.dumps(content, separators=(",", ":")) + "\n")
