"""Tests of a third party's distribution in a new environment, used from the shell."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import attrs
import pytest

SOURCE = Path(__file__).resolve().parents[1] / "example_plugin"
SMALL = ["-d", "images_per_split=60"]


def _done(command: list[object], *, code: int = 0, **more) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **more
    )
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@attrs.frozen
class Shell:
    """A working folder, and an environment in which the example is installed."""

    python: Path
    folder: Path

    def __call__(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run `fssbench`."""
        environment = {
            **os.environ, "FSSBENCH_CACHE": str(self.folder / "cache"), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        environment.pop("FSSBENCH_PLUGINS", None)
        command = [self.python, "-m", "fssbench", *arguments]
        return _done(command, code=code, cwd=self.folder, env=environment)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """Create an environment with one more file, by which it can import the packages of the tests.

    So neither torch nor fssbench is installed again, and the example is installed as anybody's is.
    """
    folder = tmp_path_factory.mktemp("example")
    _done([sys.executable, "-m", "venv", folder / "env"])
    python = folder / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    own = _done([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout
    # `addsitedir` also reads .pth files, e.g. that of an editable fssbench.
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(paths)]
    Path(own.strip(), "running.pth").write_text("\n".join(lines) + "\n")
    # A copy, because building writes files.
    source = shutil.copytree(SOURCE, folder / "source")
    # Without isolation, an installed build backend is used and nothing is downloaded.
    offline = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    _done([python, "-m", "pip", "install", "--quiet", "--no-deps", *offline, source])
    return Shell(python, folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # eight processes that each import torch
def test_a_third_partys_package_from_list_to_board(shell):
    listed = json.loads(shell("list", "plugins", "--json").stdout)
    (example,) = (plugin for plugin in listed if plugin["name"] == "example")
    assert example["source"] == "fssbench-example 0.1.0"
    assert set(example["hooks"]) == {"fssbench_matchers", "fssbench_metrics"}
    assert not example["error"]

    # By the distribution's name; tests/cli has tests of other names.
    checked = json.loads(shell("plugin", "check", "fssbench-example", "--json").stdout)
    assert [(each["kind"], each["name"]) for each in checked] == [
        ("matcher", "example-matcher"),
        ("metric", "example-size"),
    ]
    outcomes = [outcome for each in checked for outcome in each["outcomes"]]
    assert [o for o in outcomes if o["verdict"] != "passed"] == []
    refused = shell("plugin", "check", "exampel", code=2).stderr
    assert "did you mean 'example'?" in refused.splitlines()[-1]

    trained = json.loads(
        shell(
            "train", "example-matcher", *SMALL, "--steps", 4, "--batch-size", 4, "--workers", 0,
            "--device", "cpu", "--validation-episodes", 10, "--json",
        ).stdout
    )  # fmt: skip
    assert trained["steps"] == 4

    records = json.loads(
        shell(
            "evaluate", "--checkpoint", trained["best"], "--fold", 0, "--workers", 0,
            "--metrics", "iou,example-size", "--device", "cpu", *SMALL, "--json",
        ).stdout
    )  # fmt: skip
    assert len(records) == 1
    assert records[0]["scores"]["miou"] > 15
    assert "example_size" in records[0]["scores"]

    shell("board", "build", "runs", "--out", "boards")
    (page,) = (shell.folder / "boards").glob("shapes*.md")
    rows = [line for line in page.read_text().splitlines() if "| example-matcher" in line]
    assert f" {records[0]['scores']['miou']:.1f} " in rows[0]
    shell("board", "check", "boards")


@pytest.mark.slow
def test_the_environment_is_its_own(shell):
    code = "import fssbench_example, sys; print(fssbench_example.__file__); print(sys.prefix)"
    file, prefix = _done([shell.python, "-c", code]).stdout.split()
    assert Path(prefix) == shell.folder / "env"
    assert Path(prefix) in Path(file).parents
    assert importlib.util.find_spec("fssbench_example") is None
