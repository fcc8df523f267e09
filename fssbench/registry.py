"""Names to specs, specs to objects, options to configs; and answers that help with wrong names."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import cattrs

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
    return _resolve(spec.factory, spec.name)


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
    return _resolve(spec.importer, spec.name)


def load_stages(spec: MatcherSpec, matcher: Matcher) -> Sequence[Stage]:
    """Return the training stages of a matcher in order; none if `spec` names no function.

    Args:
        spec: description of the matcher.
        matcher: matcher that `spec` describes, with its initial weights.

    Raises:
        FssbenchError: the function that `spec` names cannot be imported.
    """
    return tuple(_resolve(spec.stages, spec.name)(matcher)) if spec.stages else ()


def load_lists(spec: ProtocolSpec) -> Any:
    """Import what a protocol's `lists` names.

    Raises:
        FssbenchError: it cannot be imported, or the protocol has none.
    """
    return _resolve(spec.lists, spec.name)


def options_class(spec: Spec) -> type[Any] | None:
    """The attrs class of a spec's options, or None when it takes none."""
    return typing.cast(type[Any], _resolve(spec.config, spec.name)) if spec.config else None


def configure(spec: Spec, options: Mapping[str, Any]) -> Any:
    """A spec's config object from options, whose values may be text from the command line.

    Raises:
        FssbenchError: an option is unknown or its value is of the wrong kind.
    """
    config_class = options_class(spec)
    if config_class is None:
        if options:
            raise FssbenchError(f"{spec.name} takes no options, but was given {', '.join(options)}")
        return None
    fields = attrs.fields_dict(config_class)
    hints = typing.get_type_hints(config_class)
    values = {}
    for key, value in options.items():
        name = key.replace("-", "_")
        if name not in fields:
            raise FssbenchError(
                f"{spec.name} has no option {key!r}; {near(name, fields)}"
                f"its options: {', '.join(fields) or 'none'}"
            )
        try:
            values[name] = structure(value, hints[name])
        except Exception as error:
            raise FssbenchError(
                f"option {key}={value} of {spec.name}: expected {_spell(hints[name])}"
            ) from error
    try:
        return config_class(**values)
    except (TypeError, ValueError) as error:
        raise FssbenchError(f"options of {spec.name}: {error.args[0]}") from error


def structure(value: Any, hint: Any) -> Any:
    """Turn a value, perhaps text from a command line or TOML, into the type `hint`.

    Raises:
        ValueError, cattrs errors: it cannot be turned into that type.
    """
    if isinstance(value, str):
        return _from_text(value, hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, bool, str):
        if type(value) is not hint:
            raise ValueError(value)
        return value
    return cattrs.structure(value, hint)


def _from_text(text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", ""):
            return None
        return _first_that_fits(text, [a for a in arguments if a is not type(None)])
    if origin is typing.Literal:
        return {str(choice): choice for choice in arguments}[text]
    if origin is tuple:
        parts = [part.strip() for part in text.split(",")] if text else []
        if arguments[-1] is Ellipsis:
            return tuple(_from_text(part, arguments[0]) for part in parts)
        return tuple(_from_text(part, a) for part, a in zip(parts, arguments, strict=True))
    if hint is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
            text.lower()
        ]
    return cattrs.structure(text, hint)


def _first_that_fits(text: str, hints: Sequence[Any]) -> Any:
    for hint in hints:
        try:
            return _from_text(text, hint)
        except Exception:
            continue
    raise ValueError(text)


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", None) or str(hint).replace("typing.", "")


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def _kind(spec_class: type[Spec]) -> str:
    return next(kind for kind, known in KINDS.items() if issubclass(spec_class, known))


def _resolve(path: str, name: str) -> Any:
    module_name, _, attribute = path.partition(":")
    if not path:
        raise FssbenchError(f"{name} has no factory, so there is nothing to make; mend its spec")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise FssbenchError(f"{name}: cannot import {path}: {error}") from error


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
