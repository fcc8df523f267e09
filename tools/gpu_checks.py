"""Everything that is to be checked and measured on a GPU, in one call.

    python tools/gpu_checks.py --out gpu.json [--data DATA] [--steps 100] [--episodes 200]

Runs the tests that are marked ``gpu``; then, for each bundled method, with the encoder of its paper
and random weights: trains some steps on `shapes` (and on voc_mini, if DATA holds it) in fp32 and in
bf16, and evaluates each checkpoint 1- and 5-shot in both. Prints and writes a table with hardware
and versions. With ``--device cpu`` it tries itself, on small encoders.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import fssbench
from fssbench.harness.environment import environment

# Method, the encoder of its paper, stages in order, options; and what stands for them on a CPU.
METHODS: tuple[tuple[str, str, tuple[str, ...], dict[str, Any]], ...] = (
    ("dcama", "resnet50", ("meta",), {}),
    ("hdmnet", "resnet50-psp", ("base", "meta"), {"base_classes": 15}),
    ("fsdino", "dinov2-b", ("meta",), {}),
    ("uinofss", "dinov2-b", ("meta",), {}),
)
TINY = {
    "resnet50": "tiny-resnet",
    "resnet50-psp": "tiny-resnet",
    "dinov2-b": "tiny-vit",
}


class StepTimes:
    """Observes a training: when steps end. The first ten are warm-up and do not count."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def fssbench_step_finished(self) -> None:
        """A step ended; its losses were read, so the device has come to an end too."""
        self.ends.append(time.perf_counter())

    def rate(self) -> float:
        """Steps per second."""
        skipped = min(10, len(self.ends) - 2)
        return (len(self.ends) - 1 - skipped) / (self.ends[-1] - self.ends[skipped])


def main() -> None:
    """Check, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--data", type=Path, help="folder with voc_mini")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", default=",".join(method for method, *_ in METHODS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use: see fssbench doctor")
    tests = None
    if asked.device == "cuda":
        tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu"], check=False)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for method, backbone, stages, options in METHODS:
            if method in asked.methods.split(","):
                encoder = backbone if asked.device == "cuda" else TINY[backbone]
                for data, precision in itertools.product(_datasets(asked.data), ("fp32", "bf16")):
                    rows += _measured(
                        asked, Path(folder), method, encoder, stages, options, data, precision
                    )
    print(pd.DataFrame(rows).to_string(index=False))
    device = torch.device(asked.device)
    facts = environment(device=device)
    status = None if tests is None else tests.returncode
    asked.out.write_text(
        json.dumps({"environment": facts, "gpu_tests": status, "rows": rows}, indent=1) + "\n"
    )


def _datasets(data: Path | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"dataset": "shapes"}]
    if data is not None:
        found.append({"dataset": "pascal5i", "data_root": data / "voc_mini"})
    return found


def _measured(
    asked: argparse.Namespace, folder: Path, method: str, backbone: str, stages: tuple[str, ...],
    options: dict[str, Any], data: dict[str, Any], precision: str,
) -> list[dict[str, Any]]:  # fmt: skip
    cuda = asked.device == "cuda"
    job = {**data, "matcher": method, "backbone": backbone, "device": asked.device}
    out = folder / f"{method}-{data['dataset']}-{precision}"
    init, rows = None, []
    for stage in stages:
        times = StepTimes()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        result = fssbench.train(
            **job, stage=stage, recipe="pascal5i" if cuda else "shapes", options=options,
            steps=asked.steps, batch_size=asked.batch, init=init,
            weights="random" if init is None else "pretrained",
            precision=precision, validation_episodes=0, out=out, observers=lambda _, t=times: [t],
        )  # fmt: skip
        init = result.last
        rows.append(
            {
                "method": method, "encoder": backbone, "data": data["dataset"],
                "work": f"train {stage}, batch {asked.batch}", "precision": precision,
                "per second": round(times.rate(), 2), "unit": "steps", "MiB": _peak(cuda),
            }
        )  # fmt: skip
    protocol = "shapes/v1-1k" if data["dataset"] == "shapes" else "pascal5i/v1-1k"
    where = {key: value for key, value in data.items() if key != "dataset"}
    for shots, measured in itertools.product((1, 5), ("fp32", "bf16")):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        (result,) = fssbench.evaluate(
            checkpoint=init, protocol=protocol, **where, folds=(0,), shots=(shots,),
            limit=asked.episodes, device=asked.device, precision=measured, any_fold=False,
            out=out / "runs", **({} if len(stages) > 1 else {"weights": "random"}),
        )  # fmt: skip
        record = result.record
        rows.append(
            {
                "method": method, "encoder": backbone, "data": data["dataset"],
                "work": f"evaluate {shots}-shot, trained in {precision}", "precision": measured,
                "per second": round(1 / record.cost.seconds_per_episode, 2), "unit": "episodes",
                "MiB": _peak(cuda), "mIoU": round(record.scores["miou"], 2),
            }
        )  # fmt: skip
    return rows


def _peak(cuda: bool) -> int | None:
    return round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None


if __name__ == "__main__":
    main()
