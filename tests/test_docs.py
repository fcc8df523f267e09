"""Tests of the completeness and the examples of the documentation."""

from __future__ import annotations

import importlib
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path

import attrs
import click
import pytest
from docs_pages import (
    DOCS,
    PAGES,
    REPOSITORY,
    TINY,
    blocks,
    files,
    page,
    sections,
    working_folder,
    write,
)

import fssbench
from fssbench import registry
from fssbench.cli import _VERBS, _run, _split_plugins, cli
from fssbench.plugins import Plugins
from fssbench.registry import KINDS, Registry
from fssbench.results.record import Record
from fssbench.specs import MatcherSpec

LINKING = [
    *PAGES,
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "plugins" / "README.md",
    REPOSITORY / "leaderboards" / "README.md",
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    with working_folder(tmp_path, monkeypatch) as empty:
        yield empty


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
    """Return the verbs without subcommands, e.g. ``board build``."""
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
    known = dict(
        pair for name in [*_VERBS, "analyse"] for pair in verbs(subcommand(cli, name), name)
    )
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
    """Every `fssbench` command of a page can be parsed: verbs, options, types of values."""
    for block in blocks(path.read_text(), "console"):
        for line in re.findall(r"^\$ fssbench (.+)$", block, re.MULTILINE):
            arguments, _ = _split_plugins(shlex.split(line, comments=True))
            command: click.Command = cli
            while isinstance(command, click.Group):
                command, arguments = subcommand(command, arguments[0]), arguments[1:]
            command.make_context(command.name, list(arguments))


# --- records and names ----------------------------------------------------------------------------


def fields(kind: type, prefix: str = "") -> Iterator[str]:
    """Return the field names of an attrs class; those of nested classes as ``outer.inner``."""
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
    """All names of the core are documented; other plugins may be installed."""
    known = Registry(Plugins())
    ours = {info.name for info in known.plugins.infos if info.source == "built-in"}
    text = "\n".join(path.read_text() for path in PAGES)
    for kind, spec_class in KINDS.items():
        for name, spec in known.specs(spec_class).items():
            if known.provider(spec) in ours:
                assert f"`{name}`" in text, f"{kind} {name} is on no page of docs/"


def test_the_api_reference_has_every_public_name():
    """Each name is listed once, with the module that defines it; base classes may be listed."""
    entries = re.findall(r"^::: (.+)\.(\w+)$", page("api"), re.MULTILINE)
    found = {name: getattr(importlib.import_module(module), name) for module, name in entries}
    assert len(found) == len(entries)
    for name in fssbench.__all__:
        assert found.get(name) is getattr(fssbench, name), name


# --- architecture ---------------------------------------------------------------------------------


def test_every_path_of_the_architecture_exists():
    paths = re.findall(
        r"`((?:docs|fssbench|leaderboards|plugins|tests|tools)/[^`]*)`", page("architecture")
    )
    assert len(paths) > 60
    for path in paths:
        found = REPOSITORY / path
        assert found.is_dir() if path.endswith("/") else found.is_file(), path


def test_the_architecture_has_a_row_for_every_room():
    described = sections(page("architecture"))["Rooms"]
    for path in (REPOSITORY / "fssbench").glob("*/__init__.py"):
        assert f"| `fssbench/{path.parent.name}/` |" in described, path.parent.name


# --- links ----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as on GitHub."""
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
    """Pages of a subfolder are linked on the page with its name, e.g. hooks.md."""
    for path in PAGES:
        name = path.relative_to(DOCS)
        inside = name.parent != Path()
        described = (DOCS / f"{name.parent}.md" if inside else DOCS / "index.md").read_text()
        assert name == Path("index.md") or f"({name.as_posix()})" in described, name
