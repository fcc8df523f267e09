"""Discovery and loading of plugins; a broken one is listed with the reason, and others work."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pluggy

from fssbench import hookspecs
from fssbench.errors import FssbenchError, one_line

ENVIRONMENT_VARIABLE = "FSSBENCH_PLUGINS"

_COMPONENTS = {
    f"fssbench_{kind}s"
    for kind in ("dataset", "sampler", "protocol", "backbone", "matcher", "metric")
}
"""Hooks whose results compute rows."""

# fssbench's own datasets, protocols, … are registered by the same hooks as those of plugins.
BUILT_IN = (
    "fssbench.data",
    "fssbench.episodes",
    "fssbench.backbones",
    "fssbench.matchers",
    "fssbench.metrics",
    "fssbench.trackers",
)


@attrs.frozen(kw_only=True)
class PluginInfo:
    """A plugin, as listed by `fssbench list plugins`.

    Attributes:
        name: entry-point name, module name or file.
        source: ``built-in``, the distribution and its version, ``-p``, or the environment variable.
        hooks: names of the hooks that it implements.
        error: reason why it could not be loaded, or "".
    """

    name: str
    source: str
    hooks: tuple[str, ...] = ()
    error: str = ""


class _Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        """Treat functions called ``fssbench_…`` as hook implementations, marked or not."""
        options = super().parse_hookimpl_opts(plugin, name)
        by_name = name.startswith("fssbench_") and inspect.isroutine(getattr(plugin, name, None))
        if options is None and by_name:
            return typing.cast(pluggy.HookimplOpts, {})  # pluggy adds the defaults
        return options


class Plugins:
    """The loaded plugins: pluggy's manager and information on each plugin.

    Args:
        named: modules or ``.py`` files given with ``-p``.

    Raises:
        FssbenchError: a plugin implements an unknown hook or takes an unknown argument of a hook,
            or a plugin given with ``-p`` cannot be found.
    """

    def __init__(self, named: Sequence[str] = ()) -> None:
        self.manager = _Manager("fssbench")
        self.manager.add_hookspecs(hookspecs)
        self.infos: list[PluginInfo] = []
        for module in BUILT_IN:
            self._register(importlib.import_module(module), module, "built-in")
        entry_points = importlib.metadata.entry_points(group="fssbench")
        distributions = {e.dist for e in entry_points if e.dist is not None}
        sources = {each: f"{each.name} {each.version}" for each in distributions}
        found = [(sources[e.dist] if e.dist else "entry point", e) for e in entry_points]
        # The bundled plugins come first, so that no other distribution takes their names.
        found.sort(key=lambda pair: (not pair[0].startswith("fssbench "), pair[1].name, pair[0]))
        for source, entry in found:
            self._load(entry.name, source, entry.load)
        variable = os.environ.get(ENVIRONMENT_VARIABLE, "")
        from_environment = [name.strip() for name in variable.split(",") if name.strip()]
        for source, names in (("-p", named), (ENVIRONMENT_VARIABLE, from_environment)):
            for name in names:
                identity = str(Path(name)) if name.endswith(".py") else name
                if not self.manager.has_plugin(identity):
                    self._load(identity, source, lambda name=name: _import(name))

    def named_by_user(self) -> list[Any]:
        """Return the plugins of ``-p`` and of the environment variable, except for observers.

        Observers have hooks of events and commands alone. A plugin without any hook may replace
        functions of fssbench.
        """
        sources = ("-p", ENVIRONMENT_VARIABLE)
        return [
            self.manager.get_plugin(info.name)
            for info in self.infos
            if info.source in sources
            and not info.error
            and (not info.hooks or not _COMPONENTS.isdisjoint(info.hooks))
        ]

    @property
    def hook(self) -> pluggy.HookRelay:
        """Relay that calls hooks: ``plugins.hook.fssbench_…(argument=…)``."""
        return self.manager.hook

    @property
    def broken(self) -> list[PluginInfo]:
        """Plugins that could not be loaded."""
        return [info for info in self.infos if info.error]

    def mark_broken(self, name: str, reason: str) -> None:
        """Unregister a plugin whose hooks raise errors."""
        self.manager.unregister(name=name)
        self.infos = [
            attrs.evolve(info, error=reason) if info.name == name else info for info in self.infos
        ]

    def _load(self, name: str, source: str, load: Any) -> None:
        if owner := next((i.source for i in self.infos if i.name == name and not i.error), ""):
            reason = f"{owner} has a plugin of the same name; rename one of them"
            self.infos.append(PluginInfo(name=name, source=source, error=reason))
            return
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for the command's own output
                plugin = load()
        except (FssbenchError, KeyboardInterrupt):
            raise
        # A plugin may raise any error, and none may end the program.
        except BaseException as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if source == "-p" and missing and f"{name}.".startswith(f"{missing}."):
                raise FssbenchError(f"-p {name}: there is no such module") from error
            self.infos.append(PluginInfo(name=name, source=source, error=one_line(error)))
        else:
            self._register(plugin, name, source)

    def _register(self, plugin: Any, name: str, source: str) -> None:
        if self.manager.is_registered(plugin):
            return
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            hooks = ", ".join(hook for hook in vars(hookspecs) if hook.startswith("fssbench_"))
            raise FssbenchError(
                f"plugin {name!r} ({source}): {reason}; the hooks are: {hooks}"
            ) from error
        implemented = tuple(caller.name for caller in self.manager.get_hookcallers(plugin) or ())
        self.infos.append(PluginInfo(name=name, source=source, hooks=implemented))


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise FssbenchError(f"plugin {name}: there is no such file")
    # The module's name is the file's stem, so that specs can have factory="my_method:Class"; an
    # __init__.py is the package of its folder.
    module_name = path.resolve().parent.name if path.stem == "__init__" else path.stem
    known = sys.modules.get(module_name)
    if known is not None:
        if getattr(known, "__file__", None) and Path(str(known.__file__)).samefile(path):
            return known
        raise FssbenchError(
            f"plugin {name}: a module called {module_name!r} is already loaded; rename the file"
        )
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
