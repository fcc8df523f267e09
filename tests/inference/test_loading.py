"""Loader processes: items in order, errors of one line, little shared memory, scripts."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from types import SimpleNamespace

import attrs
import pytest
import torch

from fssbench import FssbenchError
from fssbench.runtime import loading
from fssbench.runtime.loading import load_ahead


@attrs.frozen(eq=False)
class Item:
    number: int
    planes: list[torch.Tensor]


def item(number):
    if number == 3:
        raise FssbenchError("image 3 is broken")
    return Item(number, [torch.full((5, 4), number, dtype=torch.uint8), torch.ones(number)])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("free", [1 << 40, 0])
def test_items_come_in_order_also_without_shared_memory(monkeypatch, caplog, workers, free):
    monkeypatch.setattr(loading.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    items = list(load_ahead(item, [2, 0, 1], workers=workers, pin=False, advice="again"))
    assert [each.number for each in items] == [2, 0, 1]
    for each in items:
        assert torch.equal(each.planes[0], torch.full((5, 4), each.number, dtype=torch.uint8))
        assert torch.equal(each.planes[1], torch.ones(each.number))
    assert caplog.text.count("nearly full") == (workers > 0 and free == 0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_loader_is_raised_here(workers):
    with pytest.raises(FssbenchError, match="image 3 is broken"):
        list(load_ahead(item, [1, 3], workers=workers, pin=False, advice="again"))


def killed(number):
    os.kill(os.getpid(), 9)


def test_a_killed_loader_is_an_error(capfd):
    with pytest.raises(FssbenchError, match="a loader process died .*; again"):
        list(load_ahead(killed, [1], workers=1, pin=False, advice="again"))


SCRIPT = """
import multiprocessing
multiprocessing.set_start_method("{method}")
from fssbench.runtime.loading import load_ahead
print(list(load_ahead(int, [1, 2], workers=1, pin=False, advice=""))[0].__class__.__name__)
"""
GUARDED = """
import multiprocessing
from fssbench.runtime.loading import load_ahead
if __name__ == "__main__":
    multiprocessing.set_start_method("{method}")
    print(list(load_ahead(int, [1, 2], workers=1, pin=False, advice="")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_scripts_without_a_main_guard_end_with_one_line(tmp_path, method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    path = tmp_path / "script.py"
    for text, source in ((SCRIPT, path), (GUARDED, path), (SCRIPT, "-")):
        path.write_text(text.format(method=method))
        ended = subprocess.run(
            [sys.executable, str(source)], input=text.format(method=method),
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        if text == GUARDED:
            assert ended.stdout == "[1, 2]\n", ended.stderr
        else:
            assert 'put its calls under: if __name__ == "__main__":' in ended.stderr
