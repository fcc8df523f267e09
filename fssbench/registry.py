"""Registry of the specs of all plugins, and import of what they name."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fssbench.errors import FssbenchError, near, one_line
from fssbench.plugins import Plugins
from fssbench.specs import KINDS as KINDS
from fssbench.specs import MatcherSpec, ProtocolSpec, Spec, resolve

if TYPE_CHECKING:
    from fssbench.matchers.matcher import Matcher
    from fssbench.training.stage import Stage

S = TypeVar("S", bound=Spec)

# Prefixes of names that are valid but not listed: kind, and function that returns the spec of the
# rest of a name.
_UNLISTED = {"timm": ("backbone", "fssbench.backbones.timm_any:spec")}


class Registry:
    """All specs of all plugins, by kind and name.

    Raises:
        FssbenchError: two plugins register the same name.
    """

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self._owners: dict[str, dict[str, str]] = {}
        self._specs = {kind: self._collect(kind, cls) for kind, cls in KINDS.items()}

    def specs(self, spec_class: type[S]) -> dict[str, S]:
        """Return the specs of one kind by name, in the order of the names."""
        return typing.cast(dict[str, S], self._specs[_kind(spec_class)])

    def get(self, spec_class: type[S], name: str) -> S:
        """Return the spec of a name or alias, for backbones also of ``timm/NAME``.

        Raises:
            FssbenchError: the name is unknown; the message lists similar names and broken plugins.
        """
        kind, known = _kind(spec_class), self.specs(spec_class)
        prefix, _, rest = name.partition("/")
        unlisted, function = _UNLISTED.get(_canonical(prefix), ("", ""))
        found = _named(name, known)
        if found is None and rest and unlisted == kind:
            made: S = resolve(function, name)(rest)
            self._owners[kind].setdefault(made.name, function.rpartition(".")[0])
            found = _named(made.name, known) or made
        if found is not None:
            return found
        names = [*known, *(f"{prefix}/NAME" for prefix, (of, _) in _UNLISTED.items() if of == kind)]
        message = f"no {kind} is called {name!r}; {near(name, known)}registered: {', '.join(names)}"
        if self.plugins.broken:
            reasons = "; ".join(f"{info.name}: {info.error}" for info in self.plugins.broken)
            message += f". Broken plugins, which may register it: {reasons}"
        raise FssbenchError(message)

    def provider(self, spec: Spec) -> str:
        """Return the name of the plugin that registered a spec."""
        return self._owners[_kind(type(spec))][spec.name]

    def _collect(self, kind: str, spec_class: type[Spec]) -> dict[str, Spec]:
        found: dict[str, Spec] = {}
        owners = self._owners[kind] = {}
        caller = getattr(self.plugins.hook, f"fssbench_{kind}s")
        for implementation in caller.get_hookimpls():
            owner = implementation.plugin_name
            for spec in self._call(implementation.function, owner, caller.name, spec_class):
                for name in (spec.name, *spec.aliases):
                    if name in owners:
                        raise FssbenchError(
                            f"{kind} {name!r} is registered by two plugins, {owners[name]!r} and "
                            f"{owner!r}; uninstall one of them or rename its {kind}"
                        )
                    owners[name] = owner
                found[spec.name] = spec
        return dict(sorted(found.items()))

    def _call(self, hook: Any, owner: str, hook_name: str, spec_class: type[Spec]) -> list[Spec]:
        try:
            specs = list(hook())
            wrong = [type(spec).__name__ for spec in specs if not isinstance(spec, spec_class)]
            problem = f" returned {wrong[0]}, not {spec_class.__name__}" if wrong else ""
        except Exception as error:
            problem = f": {one_line(error)}"
        if problem:
            self.plugins.mark_broken(owner, f"{hook_name}{problem}")
        return [] if problem else specs


def load(spec: Spec) -> Any:
    """Import the factory of a spec.

    Raises:
        FssbenchError: a package is missing, or the factory does not exist.
    """
    missing = [name for name in spec.requires if importlib.util.find_spec(name) is None]
    if missing:
        command = f": pip install '{spec.extra}'" if spec.extra else ""
        raise FssbenchError(f"{spec.name} needs {', '.join(missing)}, not installed{command}")
    return resolve(spec.factory, spec.name)


def load_importer(spec: MatcherSpec) -> Any:
    """Import the `importer` of a matcher.

    Raises:
        FssbenchError: the matcher has none, or it cannot be imported.
    """
    if not spec.importer:
        others = [s.name for s in registry().specs(MatcherSpec).values() if s.importer]
        raise FssbenchError(
            f"{spec.name} has no importer of authors' files; matchers that have one: "
            f"{', '.join(others) or 'none'}"
        )
    return resolve(spec.importer, spec.name)


def load_stages(spec: MatcherSpec, matcher: Matcher) -> Sequence[Stage]:
    """Return the training stages of a matcher in order, () if its spec has none.

    Args:
        spec: spec of the matcher.
        matcher: matcher with its initial weights.

    Raises:
        FssbenchError: the function cannot be imported.
    """
    return tuple(resolve(spec.stages, spec.name)(matcher)) if spec.stages else ()


def load_lists(spec: ProtocolSpec) -> Any:
    """Import the reader of a protocol's list files.

    Raises:
        FssbenchError: it cannot be imported, or the protocol has none.
    """
    return resolve(spec.lists, spec.name)


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def _named(name: str, known: Mapping[str, S]) -> S | None:
    """Return the spec of a name or alias, or None."""
    wanted = _canonical(name)
    for spec in known.values():
        if wanted in (_canonical(spec.name), *map(_canonical, spec.aliases)):
            return spec
    return None


def _kind(spec_class: type[Spec]) -> str:
    return next(kind for kind, known in KINDS.items() if issubclass(spec_class, known))


_current: Registry | None = None


def registry() -> Registry:
    """Return the registry of the process; the first call loads the plugins."""
    return _current or use_plugins(())


def use_plugins(named: Sequence[str]) -> Registry:
    """Load all plugins again, with those given with ``-p``, and return the registry."""
    global _current
    _current = Registry(Plugins(named))
    return _current


@contextlib.contextmanager
def observing(observers: Sequence[object]) -> Iterator[Any]:
    """Register observers (objects with hook methods) within the block, and yield the hooks."""
    manager = registry().plugins.manager
    with contextlib.ExitStack() as stack:
        for observer in observers:
            manager.register(observer)
            stack.callback(manager.unregister, observer)
        yield manager.hook
