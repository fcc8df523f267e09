"""The cards of the methods: options, ablations and parameter counts are those of the code."""

from __future__ import annotations

import functools
import re
import typing

import attrs
import pytest
from docs_pages import DOCS, page, sections, table

import fssbench
from fssbench import registry
from fssbench.build import parameters as backbone_parameters
from fssbench.options import configure, options_class
from fssbench.plugins import Plugins
from fssbench.specs import BackboneSpec, MatcherSpec

CARDS = [path.stem for path in sorted((DOCS / "methods").glob("*.md"))]
SECTIONS = ["Paper", "Use", "Options", "Ablations", "Parameters", "Verified", "Not run"]


def card(name: str) -> dict[str, str]:
    return sections(page(f"methods/{name}"))


def spec_of(name: str) -> MatcherSpec:
    return registry.registry().get(MatcherSpec, name)


def spelled(value: object) -> str:
    """A default as a person types it behind -o."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return '""' if value == "" else str(value)


def options_of(cell: str) -> list[dict[str, str]]:
    """The options of each command line that a cell shows, backbone included."""
    shown = []
    for line in re.findall(r"`([^`]+)`", cell):
        words = line.split()
        pairs = [words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "-o"]
        options = dict(pairs)
        if "--backbone" in words:
            options["--backbone"] = words[words.index("--backbone") + 1]
        shown.append(options)
    return shown


@functools.cache
def sizes(model: str) -> dict[str, int]:
    """Parameters of a model, e.g. ``hdmnet --backbone vgg16-bn``, by part."""
    (options,) = options_of(f"`{model}`")
    backbone = options.pop("--backbone")
    name = model.split()[0]
    matcher = fssbench.matcher(name, backbone, **options)
    *_, last = registry.load_stages(registry.registry().get(MatcherSpec, name), matcher)
    groups = last.parameters(matcher, None)
    return {
        **{
            name: sum(p.numel() for p in part.parameters())
            for name, part in matcher.named_children()
        },
        "all": sum(p.numel() for p in matcher.parameters()),
        "trained": sum(p.numel() for group in groups for p in group.parameters),
        "backbone": backbone_parameters(registry.registry().get(BackboneSpec, backbone)),
    }


def test_every_bundled_method_has_a_card():
    plugins = Plugins()
    ours = {
        info.name
        for info in plugins.infos
        if info.source == "built-in" or info.source.startswith("fssbench ")
    }
    known = registry.registry()
    for name, spec in known.specs(MatcherSpec).items():
        if known.provider(spec) in ours:
            assert any(f"`{name}`" in page(f"methods/{each}") for each in CARDS) or name in CARDS
    assert set(CARDS) <= set(known.specs(MatcherSpec))


@pytest.mark.parametrize("name", CARDS)
def test_cards_have_the_same_sections(name):
    assert page(f"methods/{name}").startswith(f"# {name}\n")
    told = [heading for heading in card(name) if heading in SECTIONS]
    assert told == SECTIONS
    paper = " ".join(card(name)["Paper"].split())
    title = re.search(r"\*(.+?)\*", paper)
    assert title
    assert title[1] in spec_of(name).paper or spec_of(name).paper.split(",")[1].strip() in title[1]


@pytest.mark.parametrize("name", CARDS)
def test_options_are_those_of_the_code(name):
    config = options_class(spec_of(name))
    hints = typing.get_type_hints(config)
    told = {row[0].strip("`"): row for row in table(card(name)["Options"])}
    assert list(told) == [field.name for field in attrs.fields(config)]
    for field in attrs.fields(config):
        _, default, meaning = told[field.name]
        assert default == f"`{spelled(field.default)}`", field.name
        if typing.get_origin(hints[field.name]) is typing.Literal:
            for choice in typing.get_args(hints[field.name]):
                assert f"`{choice}`" in meaning, f"{field.name}: {choice}"


@pytest.mark.parametrize("name", [name for name in CARDS if name != "prototype"])
def test_rows_of_ablations_are_options_that_exist(name):
    """Each row is another model, and `defaults` is written for the options' defaults alone."""
    spec = spec_of(name)
    configs = {}
    for row, cell, printed in table(card(name)["Ablations"]):
        assert re.fullmatch(r"|\d\d\.\d", printed), row
        if cell == "defaults":
            continue
        for options in options_of(cell):
            backbone = options.pop("--backbone", None)
            assert backbone is None or registry.registry().get(BackboneSpec, backbone)
            config = configure(spec, options)
            assert backbone or config != configure(spec, {}), row
            configs.setdefault((config, backbone), []).append(row)
    assert len(configs) >= 5 or name == "seggpt"  # a finished model with one option


@pytest.mark.parametrize(
    ("model", "part", "number"),
    [
        (model.strip("`"), part, number)
        for name in CARDS
        if card(name)["Parameters"].strip() != "None."
        for model, part, number, _ in table(card(name)["Parameters"])
    ],
)
def test_parameter_counts_are_those_of_the_code(model, part, number):
    found = sizes(model)
    assert f"{sum(found[each] for each in part.split(' + ')):,}" == number


def test_methods_without_parameters():
    assert not list(fssbench.matcher("prototype", "filterbank").parameters())
    insid3 = fssbench.image_matcher("insid3", {"features": "tiny-vit"})
    assert not list(insid3.parameters())
    for name in ("prototype", "insid3"):
        assert card(name)["Parameters"].strip() == "None."


def test_the_three_models_of_uinofss_differ_as_the_card_says():
    full = attrs.asdict(configure(spec_of("uinofss"), {}))
    for model, _, cell in table(card("uinofss")["Paper"]):
        config = attrs.asdict(configure(spec_of(model.strip("`")), {}))
        expected = {} if cell == "defaults" else options_of(cell)[0]
        assert {name: v for name, v in config.items() if full[name] != v} == expected
