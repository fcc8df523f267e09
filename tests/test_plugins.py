"""Tests of the discovery and loading of plugins."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fssbench import hookspecs
from fssbench.errors import FssbenchError
from fssbench.plugins import Plugins
from fssbench.registry import Registry
from fssbench.specs import MatcherSpec, MetricSpec

METHOD = """
from fssbench import MatcherSpec

def fssbench_matchers():
    return [MatcherSpec(name={name!r}, summary="mine", factory="{module}:Mine")]
"""


def plugin_file(folder: Path, module: str, text: str) -> str:
    path = folder / f"{module}.py"
    path.write_text(text)
    return str(path)


@pytest.fixture
def entry_point(tmp_path, monkeypatch):
    """Install a distribution with one entry point, as pip does."""

    def install(name: str, text: str, target: str = "") -> None:
        (tmp_path / f"{name}.py").write_text(text)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[fssbench]\n{name} = {target or name}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    return install


def test_installed_plugin_is_found_and_named(entry_point):
    entry_point("alpha_method", METHOD.format(name="alpha", module="alpha_method"))
    registry = Registry(Plugins())
    spec = registry.get(MatcherSpec, "alpha")
    assert spec.summary == "mine"
    assert registry.provider(spec) == "alpha_method"
    info = next(i for i in registry.plugins.infos if i.name == "alpha_method")
    assert info.source == "alpha_method 1.2"
    assert info.hooks == ("fssbench_matchers",)


@pytest.mark.parametrize(
    "text",
    [
        "import no_such_module_at_all",
        "1/0",
        "raise SystemExit(3)",
        "def broken(:\n",
        "raise BaseException('an Error')",
    ],
)
def test_broken_plugin_is_listed_and_breaks_nothing_else(entry_point, text):
    entry_point("beta_method", text)
    registry = Registry(Plugins())
    (broken,) = registry.plugins.broken
    assert broken.name == "beta_method"
    assert "Error" in broken.error or "SystemExit" in broken.error
    assert registry.get(MatcherSpec, "prototype")
    with pytest.raises(FssbenchError, match="beta_method: .*"):
        registry.get(MatcherSpec, "something-that-beta-brings")


def test_a_plugin_that_prints_leaves_stdout_alone(entry_point, capfd):
    entry_point("chatty_method", "print('hello')\n")
    Plugins()
    shown = capfd.readouterr()
    assert (shown.out, "hello" in shown.err) == ("", True)


def test_of_two_plugins_of_one_name_the_bundled_one_is_loaded(entry_point):
    entry_point("dcama", "raise AssertionError('not loaded')\n")
    plugins = Plugins()
    (broken,) = plugins.broken
    assert broken.source == "dcama 1.2"
    assert re.fullmatch(r"fssbench \S+ has a plugin of the same name; .*", broken.error)
    assert Registry(plugins).get(MatcherSpec, "dcama")


def test_plugin_whose_hook_fails_is_listed_as_broken(entry_point):
    entry_point("gamma_method", "def fssbench_matchers():\n    raise ValueError('no luck')\n")
    registry = Registry(Plugins())
    (broken,) = registry.plugins.broken
    assert broken.error == "fssbench_matchers: ValueError: no luck"
    assert registry.get(MatcherSpec, "prototype")


def test_plugin_that_returns_something_else_is_listed_as_broken(entry_point):
    entry_point("delta_method", "def fssbench_matchers():\n    return ['prototype2']\n")
    (broken,) = Registry(Plugins()).plugins.broken
    assert broken.error == "fssbench_matchers returned str, not MatcherSpec"


def test_misspelt_hook_is_an_error_that_names_the_plugin(tmp_path):
    path = plugin_file(tmp_path, "misspelt_one", "def fssbench_matcher():\n    return []\n")
    with pytest.raises(
        FssbenchError, match=r"misspelt_one\.py.*fssbench_matcher'.*fssbench_matchers"
    ):
        Plugins([path])


def test_unknown_hook_argument_is_an_error_that_names_the_plugin(tmp_path):
    text = "def fssbench_evaluation_started(run, colour):\n    pass\n"
    path = plugin_file(tmp_path, "misspelt_two", text)
    with pytest.raises(FssbenchError, match=r"misspelt_two\.py.*colour"):
        Plugins([path])


def test_duplicate_names_are_an_error_that_names_both(entry_point):
    entry_point("epsilon_method", METHOD.format(name="prototype", module="epsilon_method"))
    with pytest.raises(FssbenchError, match=r"'prototype'.*fssbench\.matchers.*epsilon_method"):
        Registry(Plugins())


def test_an_alias_may_not_take_a_name_either(tmp_path):
    text = (
        "from fssbench import MetricSpec\n"
        "def fssbench_metrics():\n"
        "    return [MetricSpec(name='mine', summary='s', factory='m:M', aliases=('miou',))]\n"
    )
    path = plugin_file(tmp_path, "alias_thief", text)
    with pytest.raises(FssbenchError, match="'miou'.*two plugins"):
        Registry(Plugins([path]))


def test_plugin_from_a_file_brings_a_class_of_that_file(tmp_path):
    path = plugin_file(tmp_path, "file_method", METHOD.format(name="mine", module="file_method"))
    registry = Registry(Plugins([path]))
    assert registry.get(MatcherSpec, "mine").factory == "file_method:Mine"
    assert registry.plugins.infos[-1].source == "-p"


def test_plugin_from_the_environment(tmp_path, monkeypatch):
    path = plugin_file(tmp_path, "env_method", METHOD.format(name="mine", module="env_method"))
    monkeypatch.setenv("FSSBENCH_PLUGINS", f"{path}, ")
    assert Registry(Plugins()).get(MatcherSpec, "mine")


def test_missing_plugin_file(tmp_path):
    with pytest.raises(FssbenchError, match=r"nowhere\.py: there is no such file"):
        Plugins([str(tmp_path / "nowhere.py")])


def test_missing_plugin_module():
    with pytest.raises(FssbenchError, match="-p no_such_module_here: there is no such module"):
        Plugins(["no_such_module_here"])
    with pytest.raises(FssbenchError, match=r"-p no_such\.inner: there is no such module"):
        Plugins(["no_such.inner"])


def test_commands_that_fail_take_no_other_verb_along(tmp_path, capsys):
    from fssbench import registry
    from fssbench.cli import _run

    path = plugin_file(tmp_path, "bad_verbs", "def fssbench_commands():\n    1 / 0\n")
    assert _run(["--help", "-p", path]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert _run(["nonsense", "-p", path]) == 2
    registry.use_plugins([])


def test_marked_and_unmarked_functions_are_both_implementations(tmp_path):
    text = (
        "import fssbench\n"
        "@fssbench.hookimpl(tryfirst=True)\n"
        "def fssbench_metrics():\n"
        "    return [fssbench.MetricSpec(name='m1', summary='s', factory='a:B')]\n"
        "def fssbench_samplers():\n"
        "    return [fssbench.SamplerSpec(name='s1', summary='s', factory='a:B')]\n"
    )
    registry = Registry(Plugins([plugin_file(tmp_path, "marked_method", text)]))
    assert registry.get(MetricSpec, "m1")
    assert registry.plugins.infos[-1].hooks == ("fssbench_metrics", "fssbench_samplers")


def test_every_hook_is_documented():
    hooks = [f for name, f in vars(hookspecs).items() if name.startswith("fssbench_")]
    assert len(hooks) >= 13
    for hook in hooks:
        assert hook.__doc__, hook.__name__


def test_listing_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from fssbench.cli import _run\n"
        "assert _run(['list']) == 0\n"
        "heavy = {'torch', 'timm', 'pandas', 'numpy', 'scipy', 'PIL', 'pycocotools', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "prototype" in done.stdout
    assert "HEAVY []" in done.stdout
