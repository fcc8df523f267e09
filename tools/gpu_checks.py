"""All checks and measurements that need a GPU, in one call.

    python tools/gpu_checks.py --out FOLDER [--wheels FOLDER] [--minutes 9] [--data DATA]

The parts, most valuable first: ``tests`` runs the tests with the mark ``gpu``; ``speed`` runs the
benchmarks with this mark (evaluation against the plain loop, encoders against the GPU's peak,
mamba-ssm's kernel against the torch scan); ``rows`` counts the pixels in which float32 predictions
differ from the CPU's; ``train`` trains each bundled method for some steps, with the encoder of its
paper and random weights, on `shapes` (and on voc_mini, if it is in DATA) in fp32 and bf16, and
evaluates each checkpoint 1- and 5-shot in both. Each figure is printed and written as soon as it
is known: ``environment.json``, ``tests.txt``, ``speed.md``, ``rows.md`` and ``train.md``. What does
not fit into the given minutes is left out, and the exit status is 1. ``--device cpu`` is a trial of
the last two parts with small encoders.

The project need not be installed: the script runs the checkout around it. On a machine without a
network, packages that are missing are installed from a folder of wheels, which this command fills
elsewhere (about 45 MiB):

    python tools/gpu_checks.py --download FOLDER --python 3.12
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]

# Distribution and module; those that a machine with torch, timm, lightning and pandas may lack.
PACKAGES = {
    "cattrs": "cattrs",
    "click": "click",
    "iniconfig": "iniconfig",
    "lazy-loader": "lazy_loader",
    "lightning-fabric": "lightning_fabric",
    "markdown-it-py": "markdown_it",
    "mdurl": "mdurl",
    "pillow": "PIL",
    "platformdirs": "platformdirs",
    "pluggy": "pluggy",
    "py-cpuinfo": "cpuinfo",
    "pycocotools": "pycocotools",
    "pygments": "pygments",
    "pytest": "pytest",
    "pytest-benchmark": "pytest_benchmark",
    "pytest-timeout": "pytest_timeout",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "segment-anything": "segment_anything",
}

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
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder for the figures")
    parser.add_argument("--parts", default="tests,speed,rows,train")
    parser.add_argument("--minutes", type=float, default=9.0, help="time limit of the whole call")
    parser.add_argument("--wheels", type=Path, help="folder with wheels of missing packages")
    parser.add_argument("--download", type=Path, help="fill such a folder, and do nothing else")
    parser.add_argument("--python", default="3.12", help="Python version of the wheels")
    parser.add_argument("--data", type=Path, help="folder with voc_mini")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--methods", default=",".join(method for method, *_ in METHODS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    asked.end = time.monotonic() + 60 * asked.minutes
    if asked.download:
        sys.exit(_download(asked.download, asked.python))
    if asked.wheels:
        _install(asked.wheels)
    _use_checkout()
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU that torch can use: see fssbench doctor")
    from fssbench.runtime.environment import environment

    asked.out.mkdir(parents=True, exist_ok=True)
    facts = json.dumps(environment(device=torch.device(asked.device)), indent=1)
    (asked.out / "environment.json").write_text(facts + "\n")
    print(facts, flush=True)
    failed = []
    for part in asked.parts.split(","):
        if part in ("tests", "speed") and asked.device == "cpu":
            continue
        print(f"# {part}", flush=True)
        try:
            {"tests": _tests, "speed": _speed, "rows": _rows, "train": _train}[part](asked)
        except Exception as error:  # the other parts have figures too
            print(f"{part}: {type(error).__name__}: {error}", flush=True)
            failed.append(part)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def _download(folder: Path, python: str) -> int:
    return subprocess.run(
        [
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:",
            "--python-version", python, "--platform", "manylinux_2_28_x86_64",
            "--platform", "manylinux2014_x86_64", "--dest", str(folder), *PACKAGES,
        ],
        check=False,
    ).returncode  # fmt: skip


def _install(wheels: Path) -> None:
    missing = [name for name, module in PACKAGES.items() if not importlib.util.find_spec(module)]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        subprocess.run([*command, "--find-links", str(wheels), *missing], check=True)
        importlib.invalidate_caches()


def _use_checkout() -> None:
    """Import the checkout's packages here and in subprocesses, with all bundled plugins."""
    folders = [str(REPOSITORY), str(REPOSITORY / "plugins"), str(REPOSITORY / "tests/benchmarks")]
    sys.path[:0] = folders
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders[:2], *([before] if before else [])])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    os.environ["FSSBENCH_PLUGINS"] = ",".join(project["entry-points"]["fssbench"].values())


def _left(asked: argparse.Namespace) -> float:
    return float(asked.end - time.monotonic())


def _tests(asked: argparse.Namespace) -> None:
    marked = [p for p in (REPOSITORY / "tests").rglob("test_*.py") if "mark.gpu" in p.read_text()]
    files = sorted(str(path) for path in marked if path.parent.name != "benchmarks")
    _pytest(asked, [*files, "-m", "gpu and not benchmark"], "tests.txt")


def _speed(asked: argparse.Namespace) -> None:
    os.environ.setdefault("FSSBENCH_GPU_EPISODES", str(asked.episodes))
    os.environ.setdefault("FSSBENCH_GPU_SAMPLE", "10")
    os.environ["FSSBENCH_BENCH_TABLE"] = str((asked.out / "speed.md").resolve())
    file = str(REPOSITORY / "tests/benchmarks/test_gpu.py")
    _pytest(asked, [file, "-s", "-m", "gpu and benchmark"], "speed.txt")


def _pytest(asked: argparse.Namespace, arguments: list[str], report: str) -> None:
    """Run tests, and print and save their output line by line."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    with (
        (asked.out / report).open("w") as file,
        subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running,
    ):
        timer = threading.Timer(_left(asked), running.kill)
        timer.start()
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            file.write(line)
            file.flush()
        timer.cancel()
    if running.returncode:
        late = running.returncode < 0
        raise RuntimeError("the time is up" if late else f"pytest ended with {running.returncode}")


class Masks:
    """An observer that stores the predicted masks by episode."""

    def __init__(self) -> None:
        self.masks: dict[int, Any] = {}

    def fssbench_episodes_measured(self, episodes: Any, predictions: Any) -> None:
        """Store the masks of a chunk."""
        self.masks.update((e.index, mask) for e, mask in zip(episodes, predictions, strict=True))


def _rows(asked: argparse.Namespace) -> None:
    """Count the pixels in which the float32 predictions of CPU and GPU differ."""
    import torch

    import fssbench

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        prototype = "prototype", TINY["resnet50"] if asked.device == "cpu" else "resnet50", (), {}
        for method, backbone, _, options in (prototype, *_methods(asked)):
            found = []
            for device in ("cpu", asked.device):
                _check_time(asked)
                found.append(Masks())
                torch.manual_seed(0)  # of a matcher without a checkpoint
                fssbench.evaluate(
                    matcher=method, backbone=backbone, weights="random", options=options,
                    folds=(0,), shots=(1,), limit=10, device=device,
                    out=Path(folder) / f"{method}-{len(found)}",
                    observers=lambda _, masks=found[-1]: [masks],
                )  # fmt: skip
            here, there = (each.masks for each in found)
            total = sum(mask.numel() for mask in here.values())
            apart = sum(int((here[index] != there[index]).sum()) for index in here)
            row = {"method": method, "encoder": backbone, "pixels": total, "different": apart}
            _show(asked, "rows", f"float32 predictions on cpu and {asked.device}", rows, row)


def _train(asked: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for method, backbone, stages, options in _methods(asked):
            for data, precision in itertools.product(_datasets(asked.data), ("fp32", "bf16")):
                for row in _measured(
                    asked, Path(folder), method, backbone, stages, options, data, precision
                ):
                    _show(asked, "train", "training", rows, row)


def _methods(asked: argparse.Namespace) -> Iterator[tuple[str, str, tuple[str, ...], Any]]:
    for method, backbone, stages, options in METHODS:
        if method in asked.methods.split(","):
            yield method, TINY[backbone] if asked.device == "cpu" else backbone, stages, options


def _show(
    asked: argparse.Namespace, name: str, title: str, rows: list[dict[str, Any]], row: Any
) -> None:
    """Add a row to a table, print it, and write the table."""
    from bench_report import text_of

    rows.append(row)
    print(json.dumps(row), flush=True)
    (asked.out / f"{name}.md").write_text(text_of(title, rows))


def _check_time(asked: argparse.Namespace) -> None:
    if _left(asked) <= 0:
        raise RuntimeError("the time is up")


def _datasets(data: Path | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"dataset": "shapes"}]
    if data is not None:
        found.append({"dataset": "pascal5i", "data_root": data / "voc_mini"})
    return found


def _measured(
    asked: argparse.Namespace, folder: Path, method: str, backbone: str, stages: tuple[str, ...],
    options: dict[str, Any], data: dict[str, Any], precision: str,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    import torch

    import fssbench

    cuda = asked.device == "cuda"
    job = {**data, "matcher": method, "backbone": backbone, "device": asked.device}
    out = folder / f"{method}-{data['dataset']}-{precision}"
    init = None
    for stage in stages:
        _check_time(asked)
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
        yield {
            "method": method, "encoder": backbone, "data": data["dataset"],
            "work": f"train {stage}, batch {asked.batch}", "precision": precision,
            "per second": round(times.rate(), 2), "unit": "steps", "MiB": _peak(cuda), "mIoU": "",
        }  # fmt: skip
    protocol = "shapes/v1-1k" if data["dataset"] == "shapes" else "pascal5i/v1-1k"
    where = {key: value for key, value in data.items() if key != "dataset"}
    for shots, measured in itertools.product((1, 5), ("fp32", "bf16")):
        _check_time(asked)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        (result,) = fssbench.evaluate(
            checkpoint=init, protocol=protocol, **where, folds=(0,), shots=(shots,),
            limit=asked.episodes, device=asked.device, precision=measured, batch_size=4,
            out=out / "runs", **({} if len(stages) > 1 else {"weights": "random"}),
        )  # fmt: skip
        record = result.record
        yield {
            "method": method, "encoder": backbone, "data": data["dataset"],
            "work": f"evaluate {shots}-shot, trained in {precision}", "precision": measured,
            "per second": round(1 / record.cost.seconds_per_episode, 2), "unit": "episodes",
            "MiB": _peak(cuda), "mIoU": round(record.scores["miou"], 2),
        }  # fmt: skip


def _peak(cuda: bool) -> int | None:
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**20) if cuda else None


if __name__ == "__main__":
    main()
