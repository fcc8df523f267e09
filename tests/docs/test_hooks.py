"""Tests of the hooks and their pages: signatures, examples and errors.

The test of a hook is called like it: ``test_fssbench_datasets``.
"""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path

import methods_for_tests
import pytest
import torch
import trainable_for_tests
from docs_pages import DOCS, HOOKS, TINY, blocks, files, page, sections, working_folder, write
from PIL import Image
from training_commands import command_line

from fssbench import FssbenchError, build, registry
from fssbench.cli import _run
from fssbench.episodes.protocol import build_manifest
from fssbench.plugins import Plugins
from fssbench.registry import KINDS, Registry
from fssbench.specs import MatcherSpec, ProtocolSpec

SMALL = ["--backbone", "filterbank", *TINY]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    with working_folder(tmp_path, monkeypatch) as empty:
        yield empty


def example(name: str) -> str:
    """Write the example of a hook's page into the working folder."""
    (file,) = write(files(page(f"hooks/{name}")), Path())
    return file


def use(name: str) -> Registry:
    """Return the registry with the example of a hook."""
    return registry.use_plugins([example(name)])


def documented(name: str, message: str) -> None:
    """Expect an error message on the hook's page, apart from line breaks."""
    told = " ".join(sections(page(f"hooks/{name}"))["Errors"].split())
    assert message in told, message


def error(code: int, capsys) -> str:
    """Return the error line of a command that failed with exit code 2."""
    assert code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("fssbench: error: ")
    return line.removeprefix("fssbench: error: ")


# --- every hook -----------------------------------------------------------------------------------


def test_every_hook_has_a_page_and_a_test():
    assert {path.stem for path in (DOCS / "hooks").glob("*.md")} == set(HOOKS)
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_fssbench_")}
    assert tests == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_page_shows_the_hooks_signature(name):
    text = page(f"hooks/{name}")
    assert text.startswith(f"# {name}\n")
    shown = ast.parse(blocks(text.partition("\n## ")[0], "python")[0]).body[0]
    declared = ast.parse(inspect.getsource(HOOKS[name])).body[0]
    assert isinstance(shown, ast.FunctionDef)
    assert isinstance(declared, ast.FunctionDef)
    assert shown.name == declared.name
    assert ast.dump(shown.args) == ast.dump(declared.args)
    assert ast.dump(shown.returns) == ast.dump(declared.returns)
    assert list(sections(text)) == ["When it is called", "Example", "Errors"]


@pytest.mark.parametrize("name", HOOKS)
def test_every_example_implements_its_hook(name):
    info = Registry(Plugins([example(name)])).plugins.infos[-1]
    assert info.hooks == (name,)
    assert not info.error


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_spec_makes_a_broken_plugin(kind, folder):
    name = f"fssbench_{kind}s"
    (folder / "wrong.py").write_text(f"def {name}():\n    return ['it']\n")
    (broken,) = registry.use_plugins(["wrong.py"]).plugins.broken
    documented(name, broken.error)
    (folder / "failing.py").write_text(f"def {name}():\n    1 / 0\n")
    (broken,) = registry.use_plugins(["failing.py"]).plugins.broken
    assert broken.error == f"{name}: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "name", [name for name in HOOKS if inspect.signature(HOOKS[name]).parameters]
)
def test_an_argument_that_a_hook_does_not_have(name, folder, capsys):
    (folder / "curious.py").write_text(f"def {name}(colour):\n    pass\n")
    told = error(_run(["list", "-p", "curious.py"]), capsys)
    assert "curious.py" in told
    assert "colour" in told
    documented(name, "is an error when plugins are loaded; it names the plugin")


# --- what a plugin brings -------------------------------------------------------------------------


def test_fssbench_datasets(capsys):
    use("fssbench_datasets")
    assert _run(["data", "check", "squares"]) == 0
    squares = build.dataset("squares")
    assert squares.class_pixels("large-2") == {1: 900}
    with pytest.raises(FssbenchError) as caught:
        squares.check_fold(7)
    documented("fssbench_datasets", f"`{caught.value}`")


def test_fssbench_samplers(folder):
    (folder / "listed.py").write_text(
        "from fssbench import ProtocolSpec\n"
        "def fssbench_protocols():\n"
        "    same = {'summary': '', 'dataset': 'shapes', 'split': 'val', 'min_pixels': 400}\n"
        "    return [ProtocolSpec(name=f'shapes/{n}', sampler=sampler, episodes=episodes, **same)\n"
        "            for n, sampler, episodes in [('all', 'each-once', None),\n"
        "                ('cut', 'each-once', 9), ('odd', 'each-onse', 9)]]\n"
    )
    known = registry.use_plugins([example("fssbench_samplers"), "listed.py"])
    shapes = build.dataset("shapes", images_per_split=60)

    def manifest(name):
        spec = known.get(ProtocolSpec, f"shapes/{name}")
        return build_manifest(spec, shapes, fold=0, shots=2, seed=0)

    asked = [(episode.class_id, episode.query) for episode in manifest("all").episodes]
    assert asked == sorted(set(asked))
    with pytest.raises(FssbenchError, match=r"shapes/cut, fold 0: no episode asks for \w+"):
        manifest("cut")
    documented("fssbench_samplers", "PROTOCOL, fold 0: no episode asks for")
    with pytest.raises(FssbenchError) as caught:
        manifest("odd")
    documented("fssbench_protocols", str(caught.value).partition(" registered:")[0])


def test_fssbench_protocols(folder, capsys):
    use("fssbench_protocols")
    small = ["--fold", "0", "--shots", "2", "-d", "images_per_split=60", "--out", "manifests"]
    assert _run(["episodes", "build", "--protocol", "shapes/large-v1", *small]) == 0
    (manifest,) = folder.glob("manifests/*.jsonl.gz")
    capsys.readouterr()
    assert _run(["episodes", "show", str(manifest), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["protocol"], told["episodes"]) == ("shapes/large-v1", 500)
    lists = ["--protocol", "shapes/large-v1", "--lists", "somewhere", *small]
    assert "leave out --lists" in error(_run(["episodes", "build", *lists]), capsys)


def test_fssbench_backbones(capsys):
    use("fssbench_backbones")
    assert _run(["evaluate", "--backbone", "grid-colours", *TINY]) == 0
    capsys.readouterr()
    assert _run(["show", "backbone", "grid-colours"]) == 0
    assert "cells  3 channels, stride 8" in capsys.readouterr().out
    with pytest.raises(FssbenchError) as caught:
        build.backbone("grid-colours").info.layer("layer4")
    documented("fssbench_backbones", f"`{caught.value}`")
    with pytest.raises(FssbenchError, match="multiples of 8"):
        build.backbone("grid-colours")(torch.zeros(1, 3, 20, 20), ["cells"])
    assert "leave out --weights random" in error(
        _run(["evaluate", "--backbone", "grid-colours", "--weights", "random", *TINY]), capsys
    )


def test_fssbench_matchers(folder, capsys):
    file = example("fssbench_matchers")
    registry.use_plugins([file])
    assert _run(["evaluate", "everything", "-o", "foreground=false", *SMALL]) == 0
    (record,) = folder.glob("runs/*/*/*/record.json")
    assert json.loads(record.read_text())["scores"]["miou"] == 0
    told = error(_run(["evaluate", "everything", "-o", "foregruond=false", *SMALL]), capsys)
    documented("fssbench_matchers", told.partition(" its ")[0])

    text = Path(file).read_text()
    (folder / "flat.py").write_text(
        text.replace("everything", "flat").replace("(len(maps), 1, 1)", "(len(maps), 2, 20, 20)")
    )
    told = error(_run(["evaluate", "flat", "-p", "flat.py", *SMALL]), capsys)
    shape = told.partition("segment gave ")[2].strip()
    assert shape.startswith("logits of shape (1, 2, 20, 20)")
    documented("fssbench_matchers", shape)
    spec = MatcherSpec(name="everything", summary="", factory="everything:Nothing")
    with pytest.raises(FssbenchError) as caught:
        registry.load(spec)
    documented("fssbench_matchers", str(caught.value).rpartition(":")[0])


def test_fssbench_metrics(folder, capsys):
    use("fssbench_metrics")
    assert _run(["evaluate", "--metrics", "iou,size-error", *SMALL]) == 0
    (record,) = folder.glob("runs/*/*/*/record.json")
    assert json.loads(record.read_text())["scores"]["size_error"] > 0
    told = error(_run(["evaluate", "--metrics", "size-eror", *SMALL]), capsys)
    documented("fssbench_metrics", told.partition(" regis")[0])


def test_fssbench_commands(folder, capsys):
    assert _run(["evaluate", *SMALL]) == 0
    (record,) = folder.glob("runs/*/*/*/record.json")
    capsys.readouterr()
    command = ["worst", str(record.parent), "--count", "3", "-p", example("fssbench_commands")]
    assert _run(command) == 0
    assert capsys.readouterr().out.count("episode ") == 3
    assert _run(["--help", "-p", "worst.py"]) == 0
    assert "Print the episodes of a finished RUN" in capsys.readouterr().out
    (folder / "verbs.py").write_text(
        "import click, fssbench\n"
        "def fssbench_commands():\n    return [mistaken]\n"
        "@click.command()\n"
        "def mistaken():\n    raise fssbench.FssbenchError('give another number')\n"
    )
    assert "give another number" in error(_run(["mistaken", "-p", "verbs.py"]), capsys)


# --- what a plugin observes: evaluation -----------------------------------------------------------


def test_fssbench_evaluation_started(capsys):
    use("fssbench_evaluation_started")
    assert _run(["evaluate", *SMALL]) == 0
    assert "prototype, fold 0: 10 episodes to do" in capsys.readouterr().err
    assert _run(["evaluate", *SMALL]) == 0  # the record exists: nothing is evaluated
    assert "episodes to do" not in capsys.readouterr().err


def test_fssbench_episodes_measured(folder):
    plugins = [example("fssbench_episodes_measured"), example("fssbench_matchers")]
    registry.use_plugins(plugins)
    assert _run(["evaluate", "everything", *SMALL]) == 0
    assert _run(["evaluate", "everything", "-o", "foreground=false", *SMALL]) == 0
    lines = [path.read_text().count("\n") for path in folder.glob("runs/*/*/*/empty.txt")]
    assert sorted(lines) == [0, 10]  # every mask of the second evaluation is empty
    (folder / "stopper.py").write_text(
        "from fssbench import FssbenchError\n"
        "def fssbench_episodes_measured(chunk):\n"
        "    if chunk == 1:\n"
        "        raise FssbenchError('no more of it')\n"
    )
    go_on = ["--backbone", "filterbank", *TINY[:-4], "--limit", "50", "--workers", "0"]
    assert _run(["evaluate", "-p", "stopper.py", *go_on]) == 2
    assert _run(["evaluate", "-p", example("fssbench_evaluation_started"), *go_on]) == 0


def test_fssbench_evaluation_finished(capsys):
    use("fssbench_evaluation_finished")
    assert _run(["evaluate", *SMALL]) == 0
    assert "weakest class: " in capsys.readouterr().err
    assert _run(["evaluate", *SMALL]) == 0
    assert "weakest class" not in capsys.readouterr().err


# --- what a plugin observes: training -------------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory, shared_cache):
    """Ten steps of a small training in a new process, with the examples of four hooks."""
    folder = tmp_path_factory.mktemp("training")
    names = ("training_started", "step_finished", "validation_finished", "training_finished")
    examples = [write(files(page(f"hooks/fssbench_{name}")), folder)[0] for name in names]
    plugins = [methods_for_tests.__file__, trainable_for_tests.__file__]
    command = [
        "train", "trainable", "--stage", "meta", "-d", "images_per_split=60", "--device", "cpu",
        "--workers", "0", "--validation-episodes", "20", "--out", str(folder / "trainings"),
    ]  # fmt: skip
    for plugin in (*plugins, *(str(folder / file) for file in examples)):
        command += ["-p", plugin]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSSBENCH_CACHE", str(shared_cache))
        done = command_line(*command)
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


def test_fssbench_training_started(training):
    assert "trainable, stage meta: 10 steps to do" in training[1]


def test_fssbench_step_finished(training):
    (log,) = training[0].glob("trainings/*/*/*/losses.csv")
    ((step, total, rate, norm),) = (line.split(",") for line in log.read_text().splitlines())
    assert step == "10"
    assert float(total) > 0
    assert 0 <= float(rate) < 0.1
    assert float(norm) > 0


def test_fssbench_validation_finished(training):
    assert "step 5: mIoU " in training[1]
    assert "the best so far" in training[1]


def test_fssbench_training_finished(training):
    (checkpoint,) = training[0].glob("trainings/*/*/*/last.safetensors")
    assert f"fssbench evaluate --checkpoint {checkpoint}" in training[1]


def test_fssbench_held_out_measured(folder, capsys, monkeypatch):
    monkeypatch.setenv("FSSBENCH_CACHE", str(folder / "cache"))
    pictures = torch.rand(12, 48, 48, 3, generator=torch.Generator().manual_seed(0))
    (folder / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray((255 * picture).byte().numpy()).save(folder / f"pictures/{number}.png")
    command = [
        "train", "fsdino", "--stage", "distill-126", "--recipe", "tiny", "--dataset", "images",
        "--data-root", "pictures", "--weights", "teacher=random", "--batch-size", "4",
        "--epochs", "1", "--device", "cpu", "--workers", "0", "--out", "trainings",
    ]  # fmt: skip
    assert _run([*command, "-p", example("fssbench_held_out_measured")]) == 0
    told = capsys.readouterr().err
    assert "held out: " in told
    assert "cosine " in told
