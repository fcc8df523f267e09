"""All checks of all objects that a plugin registers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from fssbench import registry
from fssbench.errors import FssbenchError, near
from fssbench.plugins import PluginInfo, Plugins
from fssbench.results.citations import bibtex
from fssbench.specs import BackboneSpec, MatcherSpec, Spec
from fssbench.testing import (
    backbones,
    datasets,
    image_matchers,
    matchers,
    metrics,
    protocols,
    samplers,
)
from fssbench.testing.check import Check, Checks, Outcome, Subject
from fssbench.testing.matcher_subject import MatcherSubject


@attrs.frozen(kw_only=True)
class Settings:
    """Settings of the checks.

    Attributes:
        backbone: encoder of matchers; "" for that of each matcher's recipe.
        encoders: encoders of image matchers by role.
        options: options of matchers.
        data_root: folder of datasets.
        data_options: options of datasets.
    """

    backbone: str = ""
    encoders: Mapping[str, str] = attrs.field(factory=dict)
    options: Mapping[str, Any] = attrs.field(factory=dict)
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Checked:
    """A registered object with the outcomes of its checks.

    Attributes:
        kind: ``matcher``, ``dataset``, …; ``plugin`` for one that cannot be loaded.
        name: the registered name.
        outcomes: one for each check.
    """

    kind: str
    name: str
    outcomes: tuple[Outcome, ...]


_Make = Callable[[str, Settings], Subject]

IMAGE_MATCHER = "image matcher"
"""Kind of matchers that are checked by `image_matchers.CHECKS`."""

# In dependency order: datasets before protocols, backbones before matchers.
KINDS: dict[str, tuple[Checks, _Make]] = {
    "dataset": (
        datasets.CHECKS,
        lambda name, s: datasets.DatasetSubject(
            name=name, root=s.data_root, options=s.data_options
        ),
    ),
    "sampler": (samplers.CHECKS, lambda name, _: samplers.SamplerSubject(name=name)),
    "protocol": (
        protocols.CHECKS,
        lambda name, s: protocols.ProtocolSubject(
            name=name, root=s.data_root, options=s.data_options
        ),
    ),
    "backbone": (backbones.CHECKS, lambda name, _: backbones.BackboneSubject(name=name)),
    "matcher": (
        matchers.CHECKS,
        lambda name, s: MatcherSubject(name=name, backbone=s.backbone, options=s.options),
    ),
    IMAGE_MATCHER: (
        image_matchers.CHECKS,
        lambda name, s: image_matchers.ImageMatcherSubject(
            name=name, encoders=s.encoders, options=s.options
        ),
    ),
    "metric": (metrics.CHECKS, lambda name, _: metrics.MetricSubject(name=name)),
}


_CITATIONS = Check(
    name="citations",
    summary="references.bib has every entry that the spec cites",
    look=(),
    function=lambda subject: ", ".join(bibtex(subject.spec)),
)


def find_plugins(name: str) -> list[PluginInfo]:
    """Return the plugins of a name, and load a module or file if needed.

    Args:
        name: loaded plugin, installed distribution, module, or ``.py`` file.

    Raises:
        FssbenchError: there is no such plugin.
    """
    plugins = registry.registry().plugins
    found = _loaded(plugins, name)
    if not found and (name.endswith(".py") or _importable(name)):
        named = [info.name for info in plugins.infos if info.source == "-p"]
        plugins = registry.use_plugins([*named, name]).plugins
        found = _loaded(plugins, name)
    if not found:
        raise FssbenchError(_unknown(plugins, name))
    bare = [info for info in found if not info.hooks and not info.error]
    if bare:
        raise FssbenchError(
            f"{bare[0].name} is not a plugin: it has no hook function, e.g. fssbench_matchers()"
        )
    return found


def check_plugin(info: PluginInfo, settings: Settings) -> Iterator[Checked]:
    """Run all checks of all objects that a plugin registers, object by object.

    Args:
        info: the plugin.
        settings: settings of the checks.
    """
    known = registry.registry()
    # Creating the registry calls the hooks, which may add an error.
    error = next((i for i in known.plugins.infos if i.name == info.name), info).error
    if error:
        outcome = Outcome(
            check="loads", verdict="failed", seen=error,
            expected="a module that can be imported, and hooks that return specs",
        )  # fmt: skip
        yield Checked(kind="plugin", name=info.name, outcomes=(outcome,))
        return
    for kind, (checks, make) in KINDS.items():
        for spec in known.specs(registry.KINDS[kind.split()[-1]]).values():
            if known.provider(spec) == info.name and _is_of(spec, kind):
                subject = make(spec.name, settings)
                applicable = (*checks, *((_CITATIONS,) if spec.cite else ()))
                outcomes = tuple(check.outcome(subject) for check in applicable)
                yield Checked(kind=kind, name=spec.name, outcomes=outcomes)


def _is_of(spec: Spec, kind: str) -> bool:
    """Return whether the checks of a kind are for an object."""
    if isinstance(spec, MatcherSpec):
        return (spec.encoders is not None) == (kind == IMAGE_MATCHER)
    return not isinstance(spec, BackboneSpec) or spec.features


def _loaded(plugins: Plugins, name: str) -> list[PluginInfo]:
    ways: tuple[Callable[[PluginInfo], bool], ...] = (
        lambda info: info.name == name,
        lambda info: _is_module(plugins.manager.get_plugin(info.name), name),
        lambda info: _normalised(info.source.partition(" ")[0]) == _normalised(name),
    )
    return next((found for way in ways if (found := list(filter(way, plugins.infos)))), [])


def _is_module(module: Any, name: str) -> bool:
    file = getattr(module, "__file__", None)
    if name.endswith(".py") and Path(name).is_file() and file:
        return Path(name).samefile(file)
    return getattr(module, "__name__", None) == name


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _normalised(distribution: str) -> str:
    """Return a distribution's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _unknown(plugins: Plugins, name: str) -> str:
    known = registry.registry()
    for kind, spec_class in registry.KINDS.items():
        for spec in known.specs(spec_class).values():
            if name in (spec.name, *spec.aliases):
                owner = known.provider(spec)
                return f"{name} is a {kind} of the plugin {owner}: fssbench plugin check {owner}"
    names = [info.name for info in plugins.infos]
    return (
        f"no plugin, module, .py file or distribution is called {name!r}; {near(name, names)}"
        f"loaded: {', '.join(names)}"
    )
