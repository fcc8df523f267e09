"""The docs are complete, and what they show works."""

from __future__ import annotations

import inspect
import re
import shlex
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest

from fssbench import hookspecs, registry
from fssbench.cli import _VERBS, _run, _split_plugins, cli
from fssbench.harness.evaluate import Evaluation, evaluate
from fssbench.harness.record import Record
from fssbench.plugins import Plugins
from fssbench.registry import KINDS, Registry
from fssbench.specs import MatcherSpec

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LINKING = [
    *PAGES,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "plugins" / "README.md",
    REPOSITORY / "leaderboards" / "README.md",
]
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("fssbench_")}
TINY = ["--fold", "0", "-d", "images_per_split=60", "--limit", "10", "--workers", "0"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in; plugins that were loaded from files are gone afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    registry.use_plugins([])
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def sections(text: str) -> dict[str, str]:
    """Text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def files(text: str) -> dict[str, str]:
    """Python blocks that are complete files: their first line is a comment with the file's name."""
    found = {}
    for block in blocks(text, "python"):
        name = re.match(r"# ([\w/]+\.py)\n", block)
        if name:
            found[name[1]] = block
    return found


def write(found: dict[str, str], folder: Path) -> list[str]:
    for name, text in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(found)


# --- hooks ----------------------------------------------------------------------------------------


def test_every_hook_has_a_heading_with_its_arguments():
    expected = [
        f"{name}({', '.join(inspect.signature(hook).parameters)})" for name, hook in HOOKS.items()
    ]
    assert list(sections(page("hooks"))) == expected


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_an_example_that_implements_it(name, folder):
    (section,) = (t for heading, t in sections(page("hooks")).items() if heading.startswith(name))
    (file,) = write(files(section), folder)
    info = Registry(Plugins([file])).plugins.infos[-1]
    assert info.hooks == (name,)
    assert not info.error


def test_the_examples_of_hooks_work_together(folder, capsys):
    examples = write(files(page("hooks")), folder)
    known = registry.use_plugins(examples)
    for spec_class in KINDS.values():
        for spec in known.specs(spec_class).values():
            if known.provider(spec) in examples and spec.factory:
                registry.load(spec)
    (result,) = evaluate(
        Evaluation(
            matcher="everything",
            backbone="grid-colours",
            data_options={"images_per_split": "60"},
            folds=(0,),
            limit=10,
            workers=0,
            metrics=("iou", "size-error"),
        )
    )
    assert result.record.scores["size_error"] > 100
    assert (result.folder / "empty.txt").read_text() == ""
    told = capsys.readouterr().err
    assert "everything, fold 0: 10 episodes to do" in told
    assert "weakest class" in told
    assert _run(["worst", str(result.folder), "--count", "3"]) == 0
    assert capsys.readouterr().out.count("episode ") == 3
    assert _run(["data", "check", "squares"]) == 0


def test_the_examples_of_training_hooks_run(folder, capsys):
    known = registry.use_plugins(write(files(page("hooks")), folder))
    run = types.SimpleNamespace(matcher="mine", stage="base", steps=200, done=50, folder=folder)
    hook = known.plugins.hook
    hook.fssbench_training_started(run=run)
    hook.fssbench_step_finished(
        run=run, step=100, losses={"bce": 0.5, "total": 0.5}, lr=0.01, gradient_norm=2.0
    )
    hook.fssbench_validation_finished(run=run, step=100, scores={"miou": 12.0}, best=True)
    hook.fssbench_training_finished(run=run, checkpoint=folder / "last.safetensors")
    assert (folder / "losses.csv").read_text().split() == ["100,0.5,0.01,2.0"]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "mine, stage base: 150 steps to do"
    assert told[1] == "step 100: mIoU 12.00, the best so far"
    assert told[2].startswith("fssbench evaluate --checkpoint ")


# --- plugins --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_python_blocks_compile(path):
    for number, block in enumerate(blocks(path.read_text(), "python")):
        compile(block, f"{path.name}, block {number}", "exec")


def test_the_method_in_25_lines_is_that_short_and_runs(folder, capsys):
    found = files(sections(page("plugins"))["A method in 25 lines"])
    name, text = next(iter(found.items()))
    assert len(text.splitlines()) <= 25
    write({name: text}, folder)
    known = registry.use_plugins([name])
    (spec,) = (s for s in known.specs(MatcherSpec).values() if known.provider(s) == name)
    command = ["evaluate", spec.name, "-p", name, "--backbone", "filterbank", "--shots", "1,3"]
    assert _run([*command, *TINY]) == 0
    assert f"{spec.name} on filterbank" in capsys.readouterr().out


def test_the_other_plugins_of_the_page_run(folder, capsys):
    write(files(page("plugins")), folder)
    small = ["--backbone", "filterbank", *TINY]
    threshold = ["-p", "my_method.py", "-p", "my_threshold.py", "-o", "cosine=0.9"]
    assert _run(["evaluate", "mean-threshold", *threshold, *small]) == 0
    assert _run(["evaluate", "-p", "iou_by_support.py", *small, "--out", "observed"]) == 0
    (table,) = folder.glob("observed/*/*/*/iou_by_support.csv")
    assert len(table.read_text().splitlines()) == 10
    assert _run(["data", "check", "bars", "-p", "bars.py"]) == 0
    bars = ["--protocol", "bars/v1", "--backbone", "filterbank", "--workers", "0"]
    assert _run(["evaluate", "-p", "bars.py", *bars]) == 0
    regnet = ["-p", "regnet.py", "--backbone", "regnety-400m", "--weights", "random"]
    assert _run(["evaluate", *regnet, *TINY]) == 0
    assert _run(["show", "backbone", "regnety-400m", "-p", "regnet.py"]) == 0
    assert "last  440 channels, stride 32" in capsys.readouterr().out


# --- command line ---------------------------------------------------------------------------------


def subcommand(command: click.Command, name: str) -> click.Command:
    assert isinstance(command, click.Group)
    found = command.get_command(click.Context(command), name)
    assert found is not None, name
    return found


def verbs(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """The verbs that do something, e.g. ``board build``."""
    if isinstance(command, click.Group):
        for inner in command.list_commands(click.Context(command)):
            yield from verbs(subcommand(command, inner), f"{name} {inner}")
    else:
        yield name, command


def options(command: click.Command) -> set[str]:
    names = {name for p in command.params if isinstance(p, click.Option) for name in p.opts}
    return names - {"-p", "--plugin"}


def test_every_verb_has_a_heading_and_its_options_are_mentioned():
    described = sections(page("cli"))
    known = dict(pair for name in _VERBS for pair in verbs(subcommand(cli, name), name))
    assert set(described) == set(known)
    for name, command in known.items():
        told = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", described[name]))
        missing = options(command) - told
        assert not missing, f"{name}: {missing} in docs/cli.md"


def test_options_of_the_command_itself_and_exit_codes_are_mentioned():
    introduction = page("cli").partition("\n## ")[0]
    for name in (*options(cli), "-p", "--plugin", "-h", "--help"):
        assert f"`{name}" in introduction, name
    for code in (0, 1, 2, 130):
        assert f"{code}:" in introduction


@pytest.mark.parametrize("path", LINKING, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_commands_are_understood(path):
    """Every `fssbench` command of a page parses: verbs, options, kinds of values."""
    for block in blocks(path.read_text(), "console"):
        for line in re.findall(r"^\$ fssbench (.+)$", block, re.MULTILINE):
            arguments, _ = _split_plugins(shlex.split(line, comments=True))
            command: click.Command = cli
            while isinstance(command, click.Group):
                command, arguments = subcommand(command, arguments[0]), arguments[1:]
            command.make_context(command.name, list(arguments))


# --- records and names ----------------------------------------------------------------------------


def fields(kind: type, prefix: str = "") -> Iterator[str]:
    """Names of the fields of an attrs class, those of classes inside of it as ``outer.inner``."""
    for name, hint in typing.get_type_hints(kind).items():
        if name in attrs.fields_dict(kind):
            yield f"{prefix}{name}"
            for inner in (hint, *typing.get_args(hint)):
                if attrs.has(inner):
                    yield from fields(inner, f"{prefix}{name}.")


def test_every_field_of_the_record_is_mentioned():
    described = sections(page("results"))["The record"]
    for name in fields(Record):
        assert f"`{name}`" in described, name


def test_every_registered_name_is_mentioned():
    """Every name of the core, that is; other plugins may be installed too."""
    known = Registry(Plugins())
    ours = {info.name for info in known.plugins.infos if info.source == "built-in"}
    text = "\n".join(path.read_text() for path in PAGES)
    for kind, spec_class in KINDS.items():
        for name, spec in known.specs(spec_class).items():
            if known.provider(spec) in ours:
                assert f"`{name}`" in text, f"{kind} {name} is on no page of docs/"


# --- links ----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", LINKING, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_links_resolve(path):
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    for link in links:
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_on_the_map():
    described = page("index")
    for path in PAGES:
        assert path.stem == "index" or f"({path.name})" in described, path.name
