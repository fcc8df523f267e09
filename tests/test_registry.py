"""Tests of the registry, of specs and of options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import attrs
import pytest

import fssbench
from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import write_checkpoint
from fssbench.matchers.matcher import config_of
from fssbench.model import model_source
from fssbench.options import configure, from_record
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
    weights: tuple[float, ...] = ()
    share: float | None = None


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
        ({"ratio": "inf"}, "ratio=inf of it: give a finite number"),
        ({"ratio": float("nan")}, "ratio=nan of it: give a finite number"),
        ({"weights": "1,inf"}, "weights=1,inf of it: give a finite number"),
        ({"weights": [1.0, float("nan")]}, "give a finite number"),
        ({"share": "-inf"}, "share=-inf of it: give a finite number"),
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


# --- options that a method gets later -------------------------------------------------------------


@pytest.mark.parametrize("method", ["fsdino", "uinofss"])
def test_committed_records_keep_their_options(method):
    """Options with another default than the recorded value, and options of later versions."""
    root = Path(__file__).parents[1] / "leaderboards" / "results" / "shapes"
    files = sorted(root.glob(f"*/{method}--*/*/record.json"))
    spec = registry.registry().get(MatcherSpec, method)
    assert files
    for file in files:
        recorded = json.loads(file.read_text())["config"]
        matcher = fssbench.matcher(method, "tiny-vit", **from_record(spec, recorded))
        assert json.loads(json.dumps(config_of(matcher))) == recorded


def test_an_old_checkpoint_has_the_options_it_was_trained_with(tmp_path):
    old = {"norm": "last", "mask": "share", "positions": "timm"}
    small = {"width": 32, "adapter_width": 16, "adapter_inner": 16, "channels": 4}
    matcher = fssbench.matcher("uinofss", "tiny-vit", **small, **old)
    header = {"matcher": "uinofss", "config": config_of(matcher), "backbone": "tiny-vit"}
    assert not old.keys() & header["config"].keys()
    write_checkpoint(tmp_path / "old.safetensors", matcher, header)
    loaded, _ = model_source(checkpoint=tmp_path / "old.safetensors").load()
    assert {name: getattr(loaded.config, name) for name in old} == old
    changed = model_source(checkpoint=tmp_path / "old.safetensors", options={"norm": "all"})
    assert changed.load()[0].config.norm == "all"
    assert config_of(fssbench.matcher("uinofss", "tiny-vit", **small))["norm"] == "all"


@pytest.mark.parametrize(
    ("backbones", "default", "refused"),
    [
        ((), "tiny-resnet", None),
        (("tiny-vit", "*"), "tiny-vit", None),
        (("tiny-vit", "dinov2-*"), "tiny-vit", "resnet50"),
    ],
)
def test_the_backbones_that_a_matcher_is_made_for(monkeypatch, backbones, default, refused):
    known = registry.registry()
    spec = attrs.evolve(known.get(MatcherSpec, "prototype"), backbones=backbones)
    get = type(known).get
    monkeypatch.setattr(
        type(known), "get", lambda self, kind, name: spec if name == "prototype" else
        get(self, kind, name),
    )  # fmt: skip
    assert model_source("prototype").backbone == default
    assert model_source("prototype", "dinov2-s").backbone == "dinov2-s"
    if refused is not None:
        with pytest.raises(FssbenchError, match=r"resnet50: matcher prototype takes tiny-vit, din"):
            model_source("prototype", refused)
