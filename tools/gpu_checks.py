"""All checks and measurements that need a GPU, in one call.

    python tools/gpu_checks.py --out FOLDER [--data DATA] [--steps 100] [--episodes 200]

Three parts: ``tests`` runs the tests with the mark ``gpu``; ``speed`` runs the benchmarks with this
mark (evaluation against the plain loop, encoders against the GPU's peak, mamba-ssm's kernel against
the torch scan); ``train`` trains each bundled method for some steps, with the encoder of its paper
and random weights, on `shapes` (and on voc_mini, if it is in DATA) in fp32 and bf16, and evaluates
each checkpoint 1- and 5-shot in both. Writes ``environment.json`` (hardware and versions),
``tests.txt``, ``speed.md`` and ``train.md`` to FOLDER. ``--device cpu`` is a trial of the last part
with small encoders.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import fssbench
from fssbench.runtime.environment import environment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "benchmarks"))

from bench_report import text_of

# Method, encoder of its paper, ordered stages, options.
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
    """An observer of the end times of training steps; the first ten are warm-up."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def fssbench_step_finished(self) -> None:
        """Store the time; the losses have been read, so the device has finished the step."""
        self.ends.append(time.perf_counter())

    def rate(self) -> float:
        """Return the number of steps per second."""
        skipped = min(10, len(self.ends) - 2)
        return (len(self.ends) - 1 - skipped) / (self.ends[-1] - self.ends[skipped])


def main() -> None:
    """Run all checks and measurements, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--parts", default="tests,speed,train")
    parser.add_argument("--data", type=Path, help="folder with voc_mini")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", default=",".join(method for method, *_ in METHODS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use: see fssbench doctor")
    parts = asked.parts.split(",")
    asked.out.mkdir(parents=True, exist_ok=True)
    facts = environment(device=torch.device(asked.device))
    (asked.out / "environment.json").write_text(json.dumps(facts, indent=1) + "\n")
    failed = []
    if "tests" in parts and asked.device == "cuda":
        failed += _pytest(["-m", "gpu and not benchmark"], asked.out / "tests.txt")
    if "speed" in parts and asked.device == "cuda":
        table = {"FSSBENCH_BENCH_TABLE": str(asked.out / "speed.md")}
        report = asked.out / "speed.txt"
        failed += _pytest(["tests/benchmarks", "-m", "gpu and benchmark"], report, **table)
    if "train" in parts:
        _train(asked)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _pytest(arguments: list[str], report: Path, **variables: str) -> list[str]:
    """Run tests and save their output; return the report's name if a test failed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        check=False, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables},
    )  # fmt: skip
    print(done.stdout)
    report.write_text(done.stdout)
    return [report.name] if done.returncode else []


def _train(asked: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for method, backbone, stages, options in METHODS:
            if method in asked.methods.split(","):
                encoder = backbone if asked.device == "cuda" else TINY[backbone]
                for data, precision in itertools.product(_datasets(asked.data), ("fp32", "bf16")):
                    rows += _measured(
                        asked, Path(folder), method, encoder, stages, options, data, precision
                    )
                    # After each run, so that the results of an interrupted call are available.
                    (asked.out / "train.md").write_text(text_of("training", rows))
    print(pd.DataFrame(rows).to_string(index=False))


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
                "mIoU": "",
            }
        )  # fmt: skip
    protocol = "shapes/v1-1k" if data["dataset"] == "shapes" else "pascal5i/v1-1k"
    where = {key: value for key, value in data.items() if key != "dataset"}
    for shots, measured in itertools.product((1, 5), ("fp32", "bf16")):
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        (result,) = fssbench.evaluate(
            checkpoint=init, protocol=protocol, **where, folds=(0,), shots=(shots,),
            limit=asked.episodes, device=asked.device, precision=measured, batch_size=4,
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
