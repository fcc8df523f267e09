"""Find and load plugins. A broken one is listed with its reason; it never breaks the rest."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pluggy

from fssbench import hookspecs
from fssbench.errors import FssbenchError, one_line

ENTRY_POINT_GROUP = "fssbench"
ENVIRONMENT_VARIABLE = "FSSBENCH_PLUGINS"

# fssbench's own datasets, protocols, … come through the same hooks as everybody's.
BUILT_IN = (
    "fssbench.data",
    "fssbench.episodes",
    "fssbench.backbones",
    "fssbench.matchers",
    "fssbench.metrics",
)


@attrs.frozen(kw_only=True)
class PluginInfo:
    """One plugin as `fssbench list plugins` shows it.

    Attributes:
        name: entry-point name, module name or file.
        source: ``built-in``, the distribution and its version, ``-p``, or the environment variable.
        hooks: names of the hooks that it implements.
        error: why it could not be loaded, "" if it could.
    """

    name: str
    source: str
    hooks: tuple[str, ...] = ()
    error: str = ""


class _Manager(pluggy.PluginManager):
    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        """Take functions called ``fssbench_…`` for hook implementations, marked or not."""
        options = super().parse_hookimpl_opts(plugin, name)
        by_name = name.startswith("fssbench_") and inspect.isroutine(getattr(plugin, name, None))
        if options is None and by_name:
            options = {
                "wrapper": False, "hookwrapper": False, "optionalhook": False,
                "tryfirst": False, "trylast": False, "specname": None,
            }  # fmt: skip
        return options


class Plugins:
    """The loaded plugins: pluggy's manager and what became of each plugin.

    Args:
        named: modules or ``.py`` files that the user named with ``-p``.

    Raises:
        FssbenchError: a plugin implements a hook that does not exist or takes an argument that its
            hook does not have, or a plugin that the user named cannot be found.
    """

    def __init__(self, named: Sequence[str] = ()) -> None:
        self.manager = _Manager("fssbench")
        self.manager.add_hookspecs(hookspecs)
        self.infos: list[PluginInfo] = []
        for module in BUILT_IN:
            self._register(importlib.import_module(module), module, "built-in")
        for entry in sorted(
            importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name
        ):
            self._load(entry.name, _distribution(entry), entry.load)
        for source, names in (("-p", named), (ENVIRONMENT_VARIABLE, _from_environment())):
            for name in names:
                if not self.manager.has_plugin(_identity(name)):
                    self._load(_identity(name), source, lambda name=name: _import(name))

    @property
    def hook(self) -> pluggy.HookRelay:
        """Call hooks as ``plugins.hook.fssbench_…(argument=…)``."""
        return self.manager.hook

    @property
    def broken(self) -> list[PluginInfo]:
        """The plugins that could not be loaded."""
        return [info for info in self.infos if info.error]

    def mark_broken(self, name: str, reason: str) -> None:
        """Take a plugin out whose hooks fail when they are called."""
        self.manager.unregister(name=name)
        self.infos = [
            attrs.evolve(info, error=reason) if info.name == name else info for info in self.infos
        ]

    def _load(self, name: str, source: str, load: Any) -> None:
        try:
            plugin = load()
        except FssbenchError:
            raise
        except ModuleNotFoundError as error:
            if source == "-p" and error.name and f"{name}.".startswith(f"{error.name}."):
                raise FssbenchError(f"-p {name}: there is no such module") from error
            self._note_broken(name, source, error)
        # Somebody's module may raise anything, and none of it may end the program.
        except (Exception, SystemExit) as error:
            self._note_broken(name, source, error)
        else:
            self._register(plugin, name, source)

    def _note_broken(self, name: str, source: str, error: BaseException) -> None:
        self.infos.append(PluginInfo(name=name, source=source, error=one_line(error)))

    def _register(self, plugin: Any, name: str, source: str) -> None:
        if self.manager.is_registered(plugin):
            return
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise FssbenchError(
                f"plugin {name!r} ({source}): {reason}; the hooks are: {', '.join(_hook_names())}"
            ) from error
        hooks = tuple(caller.name for caller in self.manager.get_hookcallers(plugin) or ())
        self.infos.append(PluginInfo(name=name, source=source, hooks=hooks))


def _hook_names() -> list[str]:
    return [name for name in vars(hookspecs) if name.startswith("fssbench_")]


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "entry point"


def _from_environment() -> list[str]:
    text = os.environ.get(ENVIRONMENT_VARIABLE, "")
    return [name.strip() for name in text.split(",") if name.strip()]


def _identity(name: str) -> str:
    return str(Path(name)) if name.endswith(".py") else name


def _import(name: str) -> ModuleType:
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise FssbenchError(f"plugin {name}: there is no such file")
    # Registered under its stem, so that specs of the file can say factory="my_method:Class"; an
    # __init__.py under its folder's name, as the package that it makes of the folder.
    package = path.resolve().parent if path.stem == "__init__" else None
    module_name = package.name if package else path.stem
    known = sys.modules.get(module_name)
    if known is not None:
        if getattr(known, "__file__", None) and Path(str(known.__file__)).samefile(path):
            return known
        raise FssbenchError(
            f"plugin {name}: a module called {module_name!r} is loaded already; rename the file"
        )
    spec = importlib.util.spec_from_file_location(
        module_name, path, submodule_search_locations=[str(package)] if package else None
    )
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
