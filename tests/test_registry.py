"""Tests of the registry, of specs and of options."""

from __future__ import annotations

from typing import Literal

import attrs
import pytest

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.options import configure
from fssbench.specs import BackboneSpec, MatcherSpec, MetricSpec, ProtocolSpec


@attrs.frozen(kw_only=True)
class Options:
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    size: int | None = None
    layers: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)
    mode: Literal["fast", "exact"] = "fast"
    level: Literal[1, 2] = 1
    text: str = attrs.field(default="", validator=attrs.validators.max_len(5))


SPEC = MatcherSpec(name="it", summary="", factory="a:B", config=f"{__name__}:Options")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"flag": "true"}, {"flag": True}),
        ({"flag": "no"}, {"flag": False}),
        ({"count": "7"}, {"count": 7}),
        ({"ratio": "1e-3"}, {"ratio": 1e-3}),
        ({"ratio": 2}, {"ratio": 2.0}),
        ({"size": "none"}, {"size": None}),
        ({"size": "384"}, {"size": 384}),
        ({"layers": "a,b"}, {"layers": ("a", "b")}),
        ({"layers": ["a"]}, {"layers": ("a",)}),
        ({"pair": "3,4"}, {"pair": (3, 4)}),
        ({"mode": "exact"}, {"mode": "exact"}),
        ({"level": "2"}, {"level": 2}),
    ],
)
def test_options_are_read_from_text(options, expected):
    assert configure(SPEC, options) == Options(**expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuont": "7"}, "no option 'cuont'; did you mean 'count'"),
        ({"count": "many"}, "count=many of it: expected int"),
        ({"count": 1.5}, "count=1.5 of it: expected int"),
        ({"flag": "maybe"}, "expected bool"),
        ({"mode": "slow"}, "expected one of fast, exact"),
        ({"pair": "1"}, "pair=1"),
        ({"text": "too long"}, "Length of 'text' must be <= 5"),
    ],
)
def test_wrong_options_are_one_clear_line(options, message):
    with pytest.raises(FssbenchError, match=message) as caught:
        configure(SPEC, options)
    assert "\n" not in str(caught.value)


def test_a_spec_without_options_takes_none():
    with pytest.raises(FssbenchError, match="takes no options, but was given size"):
        configure(MatcherSpec(name="bare", summary="", factory="a:B"), {"size": "1"})


def test_unknown_names_answer_with_near_ones_and_all():
    with pytest.raises(FssbenchError, match=r"did you mean 'prototype'\? registered: .*prototype"):
        registry.registry().get(MatcherSpec, "protoype")
    with pytest.raises(FssbenchError, match="did you mean 'resnet50'"):
        registry.registry().get(BackboneSpec, "resnet5")


@pytest.mark.parametrize("name", ["iou", "miou", "fb_iou", "fb-iou", "episode_miou"])
def test_aliases_and_underscores(name):
    assert registry.registry().get(MetricSpec, name).name == "iou"


def test_missing_package_is_reported_when_the_thing_is_asked_for():
    spec = MatcherSpec(
        name="snake", summary="", factory="a:B", requires=("no_such_pkg",), extra="fssbench[snake]"
    )
    with pytest.raises(FssbenchError, match=r"needs no_such_pkg.*pip install 'fssbench\[snake\]'"):
        registry.load(spec)


def test_factory_that_is_not_there():
    spec = MatcherSpec(name="ghost", summary="", factory="fssbench.matchers.prototype:Ghost")
    with pytest.raises(FssbenchError, match="ghost: cannot import"):
        registry.load(spec)


@pytest.mark.parametrize("stages", ["no_such_module:stages", "fssbench.matchers.prototype:stages"])
def test_function_of_stages_that_is_not_there(stages):
    spec = MatcherSpec(name="ghost", summary="", factory="a:B", stages=stages)
    with pytest.raises(FssbenchError, match=f"ghost: cannot import {stages}"):
        registry.load_stages(spec, None)


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a/b/c", "../x", "a/"])
def test_spec_names_are_plain(name):
    with pytest.raises(ValueError, match="name"):
        MatcherSpec(name=name, summary="", factory="a:B")


def test_house_protocols_point_at_things_that_exist():
    known = registry.registry()
    for protocol in known.specs(ProtocolSpec).values():
        assert protocol.dataset in known.specs(registry.KINDS["dataset"])
        assert protocol.sampler in known.specs(registry.KINDS["sampler"])
