"""Tests of ``fssbench plugin new`` and of the generated package."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from fssbench import FssbenchError
from fssbench.scaffold import package
from fssbench.scaffold.package import check_name, new_package

LONGEST_NAME = "a" * 19 + "-" + "b" * (package.LONGEST - 20)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Change to an empty folder; modules imported from it are removed afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("image", [False, True])
def test_the_package_evaluates_and_its_own_tests_pass(run, image):
    code, out, err = run("plugin", "new", "mean-of-mine", *(["--image"] if image else []))
    assert code == 0, err
    init = "fssbench-mean-of-mine/fssbench_mean_of_mine/__init__.py"
    assert f"fssbench evaluate mean-of-mine -p {init} --limit 20" in out
    assert "pip install -e fssbench-mean-of-mine" in out
    code, out, err = run(
        "evaluate", "mean-of-mine", "-p", init, "--limit", 20, "--fold", 0, "--workers", 0,
        "-d", "images_per_split=100",
    )  # fmt: skip
    assert code == 0, err
    assert "mean-of-mine on tiny-resnet" in out
    root = Path("fssbench-mean-of-mine").resolve()
    own = ["-q", "-p", "no:cacheprovider", "-c", root / "pyproject.toml", "--rootdir", root, root]
    assert pytest.main([str(each) for each in own]) == 0


def test_the_package_says_what_it_is():
    written = new_package("mean-of-mine")
    root = Path("fssbench-mean-of-mine")
    assert sorted(path.relative_to(root).as_posix() for path in written) == [
        ".github/workflows/check.yml", ".gitignore", "README.md",
        "fssbench_mean_of_mine/__init__.py", "fssbench_mean_of_mine/model.py",
        "fssbench_mean_of_mine/recipes.toml",
        "fssbench_mean_of_mine/stages.py", "pyproject.toml", "tests/test_mean_of_mine.py",
    ]  # fmt: skip
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["name"] == "fssbench-mean-of-mine"
    assert project["entry-points"]["fssbench"] == {"mean-of-mine": "fssbench_mean_of_mine"}
    model = (root / "fssbench_mean_of_mine/model.py").read_text()
    assert len(model.partition("class ")[2].splitlines()) <= 26
    assert not [path for path in written if "$$" in path.read_text() or "$m" in path.read_text()]
    recipes = tomllib.loads((root / "fssbench_mean_of_mine/recipes.toml").read_text())
    assert set(recipes["episodes"]) == {"shapes"}


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("name", ["a", "matcher", "image-matcher", "none", LONGEST_NAME])
def test_style_whatever_the_name(name, image):
    new_package(name, Path("p"), image=image)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "p"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    for path in Path("p").rglob("*.py"):
        compile(path.read_text(), str(path), "exec")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("my-method", "MyMethod"),
        ("none", "NoneMethod"),
        ("matcher", "MatcherMethod"),
        ("x-2", "X2"),
    ],
)
def test_names(name, title):
    names = check_name(name)
    assert names.title == title
    assert names.module == f"fssbench_{name.replace('-', '_')}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Method", "did you mean 'my-method'?"),
        ("MyMethod", "did you mean 'my-method'?"),
        ("my_method", "did you mean 'my-method'?"),
        ("3d", "did you mean 'my-3d'?"),
        ("../up", "did you mean 'up'?"),
        ("é", "is not a valid name of a matcher"),
        ("x" * 41, "at most 40"),
        ("prototype", "already registered by the plugin fssbench.matchers; choose another name, "
                      "e.g. 'prototype-2'"),
    ],
)  # fmt: skip
def test_wrong_names(fails, folder, name, expected):
    assert expected in fails("plugin", "new", name)
    assert not list(folder.iterdir())


def test_a_proposal_is_a_name_that_can_be_used():
    for wrong in ("My Method", "3d", "x" * 50, "-a-", "A__B", "9" * 50, f"{'x' * 39} y"):
        with pytest.raises(FssbenchError, match="did you mean '([^']+)'") as caught:
            check_name(wrong)
        check_name(str(caught.value).rpartition("did you mean '")[2].rstrip("?'"))


def test_a_module_that_is_installed_already(fails, folder, monkeypatch):
    (folder / "site").mkdir()
    (folder / "site" / "fssbench_elsewhere.py").write_text("")
    monkeypatch.syspath_prepend(str(folder / "site"))
    line = fails("plugin", "new", "elsewhere")
    assert "a module called fssbench_elsewhere is already installed" in line
    assert "'elsewhere-2'" in line


def test_nothing_is_overwritten(run, fails, folder):
    assert run("plugin", "new", "mine", "--to", "there")[0] == 0
    model = folder / "there" / "fssbench_mine" / "model.py"
    model.write_text("# changed")
    assert "there: the folder holds .github and more" in fails(
        "plugin", "new", "mine", "--to", "there"
    )
    assert model.read_text() == "# changed"
    (folder / "file").write_text("")
    assert "file: Not a directory" in fails("plugin", "new", "mine", "--to", "file")
    (folder / "fresh" / ".git").mkdir(parents=True)
    assert run("plugin", "new", "mine", "--to", "fresh")[0] == 0


def test_templates_are_package_data():
    """The wheel contains whole packages, with all files in them."""
    texts = resources.files("fssbench.scaffold") / "templates"
    found = {entry.name for entry in texts.iterdir()}
    assert found == {f"{name}.template" for name in {**package.FILES, **package.IMAGE_FILES}}
