"""The modules that commands and models load, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_CHECK = """
import sys
def loaded():
    name = sys.argv[1]
    return sorted(m for m in sys.modules if m == name or m.startswith(name + "."))
"""
_COMMAND = """
from fssbench.cli import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    sys.exit(end.code or loaded() or 0)
"""
_MODELS = """
from fssbench import MatcherSpec, registry
for spec in registry.registry().specs(MatcherSpec).values():
    registry.load(spec)
sys.exit(loaded() or 0)
"""


def check_not_loaded(module, code, *arguments):
    command = [sys.executable, "-c", _CHECK + code, module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_evaluation_loads_no_training(tmp_path):
    check_not_loaded(
        "fssbench.training", _COMMAND,
        "evaluate", "prototype", "--backbone", "filterbank", "--fold", 0, "--limit", 2,
        "--workers", 0, "--device", "cpu", "-d", "images_per_split=60", "--out", tmp_path,
    )  # fmt: skip


def test_models_load_no_training():
    check_not_loaded("fssbench.training", _MODELS)


def test_listing_loads_no_torch():
    check_not_loaded("torch", _COMMAND, "list")
