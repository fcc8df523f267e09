"""What people see: the bar, the lines, TensorBoard."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
import types

from rich.console import Console

from fssbench import train
from fssbench.training.metrics import read_metrics
from fssbench.training.progress import TrainingProgress


def test_lines_without_a_terminal(job):
    console = Console(file=io.StringIO(), width=200)
    train(job, observers=lambda run: [TrainingProgress(console)])
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("trainable meta, fold 0: epoch 1, mIoU ")
    assert lines[0].endswith(" on base classes, the best so far")
    assert lines[1].startswith("trainable meta, fold 0: epoch 2, mIoU ")
    assert lines[2].startswith("trainable meta, fold 0: 10 steps, last.safetensors written (")
    assert re.fullmatch(r"[0-9.]+ s, \d+ % waiting for data\)", lines[2].rpartition("(")[2])


def test_a_bar_on_a_terminal(job):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    report = TrainingProgress(console)
    train(job, observers=lambda run: [report])
    text = console.file.getvalue()
    for part in ("bce ", "size ", "total ", "steps/s", "mIoU "):
        assert part in text
    resumed = TrainingProgress(Console(file=io.StringIO()))
    train(job, resume=True, observers=lambda run: [resumed])
    assert "resuming after 10 steps" in resumed._console.file.getvalue()


def test_metrics_that_were_cut_off(job):
    result = train(job)
    path = result.folder / "metrics.csv"
    whole = read_metrics(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert read_metrics(path) == whole[:-1]
    assert [row["step"] for row in whole[:-1] if row["total"]] == [str(n) for n in range(1, 11)]
    assert [row["step"] for row in whole[:-1] if row["miou"]] == ["5"]


def test_tensorboard_where_it_is_installed(job, monkeypatch):
    written = []

    class Writer:
        def __init__(self, log_dir, purge_step):
            written.append((log_dir.rpartition("/")[2], purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            written.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    train(job, steps=1)
    names = ["loss/bce", "loss/size", "loss/total", "lr", "gradient_norm", "waited"]
    scores = ["validation/miou", "validation/fb_iou", "validation/episode_miou"]
    steps = [(name, 1) for name in (*names, *scores)]
    assert written == [("tensorboard", 1), *steps, "closed"]
