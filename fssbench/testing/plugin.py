"""All checks of all that a plugin registers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fssbench import registry
from fssbench.errors import FssbenchError, near
from fssbench.plugins import PluginInfo, Plugins
from fssbench.testing import backbones, datasets, matchers, metrics, protocols, samplers
from fssbench.testing.backbones import BackboneSubject
from fssbench.testing.check import Checks, Outcome, Subject
from fssbench.testing.datasets import DatasetSubject
from fssbench.testing.matcher_subject import MatcherSubject
from fssbench.testing.metrics import MetricSubject
from fssbench.testing.protocols import ProtocolSubject
from fssbench.testing.samplers import SamplerSubject


@attrs.frozen(kw_only=True)
class Settings:
    """What the checks are made with.

    Attributes:
        backbone: encoder of matchers; "" for each one's own.
        options: of matchers.
        data_root: folder of datasets.
        data_options: of datasets.
    """

    backbone: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Checked:
    """A registered thing, and what became of its checks.

    Attributes:
        kind: ``matcher``, ``dataset``, …; ``plugin`` for one that cannot be loaded.
        name: the registered name.
        outcomes: one for each check.
    """

    kind: str
    name: str
    outcomes: tuple[Outcome, ...]


_Make = Callable[[str, Settings], Subject]

# In the order in which they are checked: what others build on comes first.
KINDS: dict[str, tuple[Checks, _Make]] = {
    "dataset": (
        datasets.CHECKS,
        lambda name, s: DatasetSubject(name=name, root=s.data_root, given=s.data_options),
    ),
    "sampler": (samplers.CHECKS, lambda name, s: SamplerSubject(name=name)),
    "protocol": (
        protocols.CHECKS,
        lambda name, s: ProtocolSubject(name=name, root=s.data_root, given=s.data_options),
    ),
    "backbone": (backbones.CHECKS, lambda name, s: BackboneSubject(name=name)),
    "matcher": (
        matchers.CHECKS,
        lambda name, s: MatcherSubject(name=name, backbone_name=s.backbone, given=s.options),
    ),
    "metric": (metrics.CHECKS, lambda name, s: MetricSubject(name=name)),
}


def find_plugins(name: str) -> list[PluginInfo]:
    """The plugins that a name stands for, loaded if they were not.

    Args:
        name: of a loaded plugin, an installed distribution, a module, or a ``.py`` file.

    Raises:
        FssbenchError: it stands for none.
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
            f"{bare[0].name} has no function that is a hook of fssbench, so it is no plugin; a "
            "plugin has e.g. fssbench_matchers()"
        )
    return found


def check_plugin(info: PluginInfo, settings: Settings) -> Iterator[Checked]:
    """Run all checks of all that a plugin registers, thing by thing.

    Args:
        info: the plugin.
        settings: what the checks are made with.
    """
    known = registry.registry()
    # A hook that fails when it is called is known by now, too.
    now = next((i for i in known.plugins.infos if i.name == info.name), info)
    if now.error:
        outcome = Outcome(
            check="loads", verdict="failed", seen=now.error,
            expected="a module that can be imported, and hooks that return specs",
        )  # fmt: skip
        yield Checked(kind="plugin", name=info.name, outcomes=(outcome,))
        return
    for kind, (checks, make) in KINDS.items():
        for spec in known.specs(registry.KINDS[kind]).values():
            if known.provider(spec) == info.name:
                subject = make(spec.name, settings)
                outcomes = tuple(check.outcome(subject) for check in checks)
                yield Checked(kind=kind, name=spec.name, outcomes=outcomes)


def _loaded(plugins: Plugins, name: str) -> list[PluginInfo]:
    path = Path(name)
    ways: Sequence[Callable[[PluginInfo], bool]] = (
        lambda info: info.name == name,
        lambda info: _is_module(plugins, info, name, path),
        lambda info: _plain(info.source.partition(" ")[0]) == _plain(name),
    )
    for way in ways:
        found = [info for info in plugins.infos if way(info)]
        if found:
            return found
    return []


def _is_module(plugins: Plugins, info: PluginInfo, name: str, path: Path) -> bool:
    module = plugins.manager.get_plugin(info.name)
    file = getattr(module, "__file__", None)
    if name.endswith(".py") and path.is_file() and file:
        return path.samefile(file)
    return getattr(module, "__name__", None) == name


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _plain(distribution: str) -> str:
    """As package indices compare names."""
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
