"""Tests of the modules that commands and models import, each in a new process."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

from torch.utils._python_dispatch import TorchDispatchMode

import fssbench

_CHECK = """
import sys
def loaded():
    names = sys.argv[1].split(",")
    return sorted(m for m in sys.modules if any((m + ".").startswith(n + ".") for n in names))
"""
_COMMAND = """
from fssbench.cli import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    sys.exit(end.code or loaded() or 0)
"""
_MODELS = """
import importlib.util
from fssbench import MatcherSpec, registry
for spec in registry.registry().specs(MatcherSpec).values():
    if all(importlib.util.find_spec(name) for name in spec.requires):
        registry.load(spec)
sys.exit(loaded() or 0)
"""


def check_not_loaded(modules, code, *arguments):
    command = [sys.executable, "-c", _CHECK + code, modules, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_evaluation_loads_no_training_and_no_slow_library(tmp_path):
    """A short evaluation takes less time than the import of timm, or of torch's compiler."""
    compiler = ",torch._dynamo" if hasattr(TorchDispatchMode, "_should_skip_dynamo") else ""
    check_not_loaded(
        f"fssbench.training,timm,torchvision{compiler}", _COMMAND,
        "evaluate", "prototype", "--fold", 0, "--limit", 2, "--workers", 0, "--device", "cpu",
        "-d", "images_per_split=60", "--out", tmp_path,
    )  # fmt: skip


def test_models_load_no_training():
    check_not_loaded("fssbench.training", _MODELS)


def test_listing_loads_no_torch():
    check_not_loaded("torch", _COMMAND, "list")


def test_every_name_of_the_stub_is_its_module_s():
    tree = ast.parse(Path(fssbench.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    listed = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(listed) == sorted(fssbench.__all__)
    for name, module in listed.items():
        assert getattr(fssbench, name) is getattr(
            importlib.import_module(f"fssbench.{module}"), name
        )


def test_importing_fssbench_loads_no_torch():
    check_not_loaded("torch", "import fssbench; fssbench.MatcherSpec; fssbench.hookimpl")
