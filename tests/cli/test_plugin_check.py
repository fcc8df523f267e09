"""Tests of ``fssbench plugin check``: table, exit code and accepted names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fssbench import FssbenchError, registry
from fssbench.testing.plugin import find_plugins

GOOD = """
from fssbench import DatasetSpec, MetricSpec
from fssbench.metrics.iou import IoU


def fssbench_metrics():
    return [MetricSpec(name="overlap", summary="as iou", factory="checked:IoU")]
"""
FILES = """

def fssbench_datasets():
    return [
        DatasetSpec(
            name="mine", summary="needs files", factory="fssbench.data.folder:Folder", layout="any"
        )
    ]
"""
BAD = """

class Loud(IoU):
    def measure(self, prediction, target):
        return {name: values.int() for name, values in super().measure(prediction, target).items()}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Change to an empty folder; modules imported from it are removed afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    registry.use_plugins([])
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_good_plugin(run):
    Path("checked.py").write_text(GOOD)
    code, out, err = run("plugin", "check", "checked.py")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].strip() == "metric overlap"
    (scores,) = (line for line in lines if line.strip().startswith("scores"))
    assert scores.split()[:3] == ["scores", "passed", "miou"]
    assert lines[-1] == "8 passed"


def test_a_bad_plugin_gets_error_location_and_exit_code_1(run):
    Path("checked.py").write_text(GOOD.replace(":IoU", ":Loud") + BAD)
    code, out, _ = run("plugin", "check", "checked.py")
    assert code == 1
    details = out[out.index("metric overlap, columns:") :].splitlines()
    assert details[1] == "  expected: column intersection_fg: int64 or float64 (6,)"
    assert details[2] == "  observed: shape (6,), torch.int32"
    assert details[3].startswith("  location: Loud.measure, checked.py:")
    assert details[-1] == "7 passed, 1 failed"


def test_what_cannot_be_checked_here_is_skipped(run):
    Path("checked.py").write_text(GOOD + FILES)
    code, out, _ = run("plugin", "check", "checked.py", "--json")
    assert code == 0
    found = {(each["kind"], each["name"]): each["outcomes"] for each in json.loads(out)}
    assert list(found) == [("dataset", "mine"), ("metric", "overlap")]
    assert {o["verdict"] for o in found["dataset", "mine"]} == {"skipped"}
    assert "needs its files: folder needs --data-root" in found["dataset", "mine"][0]["seen"]
    code, out, _ = run("plugin", "check", "checked.py", "--data-root", "nowhere", "--json")
    assert code == 1
    (first, *_) = json.loads(out)[0]["outcomes"]
    assert "no folder nowhere" in first["seen"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def fssbench_metrics():\n    return 1 / 0\n", "fssbench_metrics: ZeroDivisionError"),
        ("def fssbench_metrics():\n    return [1]\n", "returned int, not MetricSpec"),
    ],
)
def test_a_plugin_that_does_not_load(run, text, reason):
    Path("checked.py").write_text(text)
    code, out, _ = run("plugin", "check", "checked.py", "--json")
    assert code == 1
    ((outcome,),) = (each["outcomes"] for each in json.loads(out))
    assert outcome["check"] == "loads"
    assert reason in outcome["seen"]


def test_options_reach_the_matcher(run):
    plugins = ["-p", "methods_for_tests", "-p", "trainable_for_tests"]
    code, out, _ = run(
        "plugin", "check", "trainable_for_tests", *plugins, "--backbone", "pixels",
        "-o", "width=4", "--json",
    )  # fmt: skip
    found = {each["name"]: each["outcomes"] for each in json.loads(out)}
    seen = {o["check"]: o for o in found["trainable"]}
    assert "36 on pixels" not in seen["parameter_counts"]["seen"]
    # 6 x 4 and 4 of mix, 4 and 4 of norm, 4 and 1 of out, 3 unused ones.
    assert "44 on pixels" in seen["parameter_counts"]["seen"]
    # Its stages are for tests of failures and list parameters that they do not use.
    assert code == 1
    assert seen["gradients"]["verdict"] == "failed"
    assert "none for" in seen["gradients"]["seen"]


def test_all_ways_to_name_a_plugin(folder):
    (dcama,) = find_plugins("dcama")
    file = Path(sys.modules["fssbench_dcama"].__file__)
    assert find_plugins("fssbench_dcama") == find_plugins(str(file)) == [dcama]
    assert {info.name for info in find_plugins("FSSbench")} >= {"dcama", "hdmnet"}
    assert [info.name for info in find_plugins("fssbench.metrics")] == ["fssbench.metrics"]
    (named,) = find_plugins("methods_for_tests")
    assert (named.name, named.source) == ("methods_for_tests", "-p")
    Path("checked.py").write_text(GOOD)
    (second,) = find_plugins("checked.py")
    assert second.name == "checked.py"
    # Plugins loaded before are still registered.
    assert find_plugins("methods_for_tests") == [named]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dcma", "no plugin, module, .py file or distribution is called 'dcma'; did you mean "
                 "'dcama'? loaded: fssbench.data, "),
        ("no.such.module", "no plugin, module, .py file or distribution is called"),
        ("nowhere.py", "plugin nowhere.py: there is no such file"),
        ("json", "json is not a plugin: it has no hook function"),
        ("miou", "miou is a metric of the plugin fssbench.metrics: fssbench plugin check "
                 "fssbench.metrics"),
    ],
)  # fmt: skip
def test_wrong_names_are_one_line(fails, name, expected):
    assert expected in fails("plugin", "check", name)


def test_unknown_plugins_are_no_reason_for_a_traceback():
    with pytest.raises(FssbenchError, match="is called ''"):
        find_plugins("")
