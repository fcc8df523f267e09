"""The registry: names to specs, specs to implementations, and errors that list near names."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fssbench.errors import FssbenchError, near, one_line
from fssbench.plugins import Plugins
from fssbench.specs import (
    BackboneSpec,
    DatasetSpec,
    MatcherSpec,
    MetricSpec,
    ProtocolSpec,
    SamplerSpec,
    Spec,
    resolve,
)

if TYPE_CHECKING:
    from fssbench.matchers.matcher import Matcher
    from fssbench.training.stage import Stage

S = TypeVar("S", bound=Spec)

KINDS: dict[str, type[Spec]] = {
    "dataset": DatasetSpec,
    "sampler": SamplerSpec,
    "protocol": ProtocolSpec,
    "backbone": BackboneSpec,
    "matcher": MatcherSpec,
    "metric": MetricSpec,
}


class Registry:
    """All specs of all plugins, by kind and name.

    Raises:
        FssbenchError: two plugins bring the same name.
    """

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self._specs: dict[str, dict[str, Spec]] = {}
        self._providers: dict[tuple[str, str], str] = {}
        for kind, spec_class in KINDS.items():
            self._specs[kind] = self._collect(kind, spec_class)

    def specs(self, spec_class: type[S]) -> dict[str, S]:
        """The specs of one kind by name, in the order of the names."""
        return typing.cast(dict[str, S], self._specs[_kind(spec_class)])

    def get(self, spec_class: type[S], name: str) -> S:
        """The spec called `name`.

        Raises:
            FssbenchError: there is none; the message offers near names and tells what is broken.
        """
        kind, known = _kind(spec_class), self.specs(spec_class)
        wanted = _canonical(name)
        for spec in known.values():
            if wanted in (_canonical(spec.name), *map(_canonical, spec.aliases)):
                return spec
        message = f"no {kind} is called {name!r}; {near(name, known)}registered: {', '.join(known)}"
        if self.plugins.broken:
            reasons = "; ".join(f"{info.name}: {info.error}" for info in self.plugins.broken)
            message += f". Broken plugins, which might bring it: {reasons}"
        raise FssbenchError(message)

    def provider(self, spec: Spec) -> str:
        """The name of the plugin that brought a spec."""
        return self._providers[_kind(type(spec)), spec.name]

    def _collect(self, kind: str, spec_class: type[Spec]) -> dict[str, Spec]:
        found: dict[str, Spec] = {}
        owners: dict[str, str] = {}
        caller = getattr(self.plugins.hook, f"fssbench_{kind}s")
        for implementation in caller.get_hookimpls():
            owner = implementation.plugin_name
            for spec in self._ask(implementation.function, owner, caller.name, spec_class):
                for name in (spec.name, *spec.aliases):
                    if name in owners:
                        raise FssbenchError(
                            f"{kind} {name!r} is brought by two plugins, {owners[name]!r} and "
                            f"{owner!r}; uninstall one of them or rename its {kind}"
                        )
                    owners[name] = owner
                found[spec.name] = spec
                self._providers[kind, spec.name] = owner
        return dict(sorted(found.items()))

    def _ask(self, hook: Any, owner: str, hook_name: str, spec_class: type[Spec]) -> list[Spec]:
        try:
            specs = list(hook())
        except Exception as error:
            self.plugins.mark_broken(owner, f"{hook_name}: {one_line(error)}")
            return []
        for spec in specs:
            if not isinstance(spec, spec_class):
                self.plugins.mark_broken(
                    owner, f"{hook_name} returned {type(spec).__name__}, not {spec_class.__name__}"
                )
                return []
        return specs


def load(spec: Spec) -> Any:
    """Import what a spec's factory names.

    Raises:
        FssbenchError: a package is missing, or the factory does not exist.
    """
    missing = [name for name in spec.requires if importlib.util.find_spec(name) is None]
    if missing:
        command = f": pip install '{spec.extra}'" if spec.extra else ""
        raise FssbenchError(f"{spec.name} needs {', '.join(missing)}, not installed{command}")
    return resolve(spec.factory, spec.name)


def load_importer(spec: MatcherSpec) -> Any:
    """Import what a matcher's `importer` names.

    Raises:
        FssbenchError: the matcher has none, or it cannot be imported.
    """
    if not spec.importer:
        known = registry().specs(MatcherSpec).values()
        others = [other.name for other in known if other.importer]
        raise FssbenchError(
            f"{spec.name} cannot read files of its authors; those that can: "
            f"{', '.join(others) or 'none'}"
        )
    return resolve(spec.importer, spec.name)


def load_stages(spec: MatcherSpec, matcher: Matcher) -> Sequence[Stage]:
    """Return the training stages of a matcher in order; none if `spec` names no function.

    Args:
        spec: description of the matcher.
        matcher: matcher that `spec` describes, with its initial weights.

    Raises:
        FssbenchError: the function that `spec` names cannot be imported.
    """
    return tuple(resolve(spec.stages, spec.name)(matcher)) if spec.stages else ()


def load_lists(spec: ProtocolSpec) -> Any:
    """Import what a protocol's `lists` names.

    Raises:
        FssbenchError: it cannot be imported, or the protocol has none.
    """
    return resolve(spec.lists, spec.name)


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def _kind(spec_class: type[Spec]) -> str:
    return next(kind for kind, known in KINDS.items() if issubclass(spec_class, known))


_current: Registry | None = None


def registry() -> Registry:
    """The process's registry; plugins are loaded at the first call."""
    global _current
    if _current is None:
        _current = Registry(Plugins())
    return _current


def use_plugins(named: Sequence[str]) -> Registry:
    """Load plugins anew, with the ones that the user named (``-p``)."""
    global _current
    _current = Registry(Plugins(named))
    return _current


@contextlib.contextmanager
def observing(observers: Sequence[object]) -> Iterator[Any]:
    """Observers (objects with hook methods) join the plugins for a while; gives the hooks."""
    manager = registry().plugins.manager
    try:
        for observer in observers:
            manager.register(observer)
        yield manager.hook
    finally:
        for observer in observers:
            if manager.is_registered(observer):
                manager.unregister(observer)
