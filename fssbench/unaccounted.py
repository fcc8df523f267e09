"""Values of a model that come from no declared source."""

from __future__ import annotations

import contextlib
import functools
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from torch import Tensor, nn

from fssbench.backbones.backbone import Backbone
from fssbench.backbones.encoder import Encoder
from fssbench.matchers.checkpoint import Checkpoint
from fssbench.matchers.image_matcher import ImageMatcher
from fssbench.matchers.matcher import Matcher
from fssbench.model import ModelSource
from fssbench.runtime.random_state import place_generators, restored_generators

Array = np.ndarray[Any, np.dtype[Any]]


def unaccounted_parameters(
    matcher: Matcher | ImageMatcher, frozen: Sequence[nn.Module], checkpoint: Checkpoint | None
) -> tuple[str, ...]:
    """Return the parameters whose values come from no declared source, each group as a text.

    Declared sources are the checkpoint and the encoder's weights. Modules and parameters in plain
    attributes of the matcher and of its classes, which no checkpoint holds, in variables of
    functions there, and in global variables of the files of these classes are found too.

    Args:
        matcher: matcher, after the checkpoint was loaded.
        frozen: its encoders.
        checkpoint: trained weights, or None.
    """
    found = []
    own = sum(p.numel() for p in matcher.parameters())
    if own and checkpoint is None:
        found.append(f"{own:,} parameters of the matcher, without a checkpoint")
    seen = {id(module) for module in matcher.modules()} | {id(p) for p in matcher.parameters()}
    for encoder in frozen:
        weights: Any = encoder.weights
        count = sum(p.numel() for p in encoder.parameters())
        if count and not weights.sha256 and weights.source != "random":
            what = "the backbone" if isinstance(encoder, Backbone) else type(encoder).__name__
            which = "no weights" if weights.source == "none" else "weights without their sha256"
            found.append(f"{count:,} parameters of {what}, which declares {which}")
        seen |= {id(module) for module in encoder.modules()}
        seen |= {id(p) for p in encoder.parameters()}
    for where, value in _attributes(matcher):
        found += [f"{text} in {where}" for text in _hidden(value, seen)]
    for kind in {type(module): None for module in matcher.modules()}:
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] in ("fssbench", "torch", "timm", "builtins"):
                continue
            file = sys.modules.get(base.__module__)
            for where, names in (
                (base.__name__, vars(base)),
                (f"the file of {base.__name__}", {} if file is None else vars(file)),
            ):
                for name, value in list(names.items()):
                    if isinstance(value, nn.Module | nn.Parameter | dict | list | tuple):
                        found += [f"{text} in {where}: {name}" for text in _hidden(value, seen)]
    return tuple(found)


def drawn_values(
    source: ModelSource, matcher: Matcher | ImageMatcher, frozen: Backbone | Mapping[str, Encoder]
) -> tuple[str, ...]:
    """Return the values that the global random generators gave to a matcher, each as a text.

    Buffers, and tensors and arrays in plain attributes, are compared with those of a second matcher
    that is built from another state of the generators. Values of the checkpoint are left out; so is
    an untrained matcher with parameters, which is unaccounted for anyway. A generator of the
    method's own gives the same values each time: these are part of its code.

    Args:
        source: source of the matcher.
        matcher: matcher, after the checkpoint was loaded.
        frozen: its backbone, or its encoders by role.
    """
    trained = source.checkpoint is not None
    if not trained and any(True for _ in matcher.parameters()):
        return ()
    stored = set(matcher.state_dict()) if trained else set()
    values = [(name, value) for name, value in _plain_values(matcher) if name not in stored]
    if not values:
        return ()
    with restored_generators():
        place_generators(1)
        again = source.matcher_on(frozen)
    others = [value for name, value in _plain_values(again) if name not in stored]
    return tuple(
        f"{int(np.prod(value.shape)):,} values in {name}, from the global random generators"
        for (name, value), other in zip(values, others, strict=False)
        if not _equal(value, other)
    )


def _plain_values(matcher: nn.Module) -> Iterator[tuple[str, Tensor | Array]]:
    """Yield buffers, and tensors and arrays in plain attributes, by the name of the attribute."""
    yield from matcher.named_buffers()
    encoders = getattr(matcher, "encoders", {})
    seen = {id(module) for module in matcher.modules()} | {id(e) for e in encoders.values()}
    for where, value in _attributes(matcher):
        for held in _held_in(value, seen):
            for each in held.buffers() if isinstance(held, nn.Module) else (held,):
                if not isinstance(each, nn.Parameter):
                    yield where, each


def _equal(value: Tensor | Array, other: Tensor | Array) -> bool:
    if isinstance(value, np.ndarray) and isinstance(other, np.ndarray):
        kind = value.dtype.kind
        return kind not in "biufc" or np.array_equal(value, other, equal_nan=kind in "fc")
    if not isinstance(value, Tensor) or not isinstance(other, Tensor) or value.shape != other.shape:
        return False
    value, other = value.cpu(), other.cpu()
    return bool(((value == other) | ((value != value) & (other != other))).all())


def _attributes(matcher: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the plain attributes of a matcher and its submodules by dotted names."""
    for path, module in list(matcher.named_modules()):
        for name, value in list(vars(module).items()):
            if name not in ("_modules", "_parameters", "_buffers"):
                yield ".".join(filter(None, (path, name))), value


def _hidden(value: Any, seen: set[int]) -> Iterator[str]:
    """Yield a text for each module with parameters, and each parameter, in nested values."""
    for hidden in _held_in(value, seen):
        count = 0
        if isinstance(hidden, nn.Parameter):
            count = hidden.numel()
        elif isinstance(hidden, nn.Module):
            count = sum(p.numel() for p in hidden.parameters())
        if count:
            yield f"{count:,} parameters of {type(hidden).__name__}"


def _held_in(value: Any, seen: set[int], depth: int = 8) -> Iterator[Any]:
    """Yield the modules, tensors and arrays in nested values that were not seen before."""
    if id(value) in seen or not depth or isinstance(value, str | bytes | type):
        return
    seen.add(id(value))
    if isinstance(value, Tensor | np.ndarray):
        yield value
        return
    if isinstance(value, nn.Module):
        seen.update(id(module) for module in value.modules())
        yield value
    elif isinstance(value, Mapping):
        for each in list(value.values()):
            yield from _held_in(each, seen, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in list(value):
            yield from _held_in(each, seen, depth - 1)
    elif isinstance(value, types.MethodType):
        yield from _held_in(value.__self__, seen, depth - 1)
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                yield from _held_in(cell.cell_contents, seen, depth - 1)
    elif isinstance(value, functools.partial):
        yield from _held_in((value.func, value.args, value.keywords), seen, depth - 1)
    elif hasattr(value, "__dict__"):
        yield from _held_in(vars(value), seen, depth - 1)
    elif attrs.has(type(value)):  # of slots, which have no __dict__
        fields = [getattr(value, field.name, None) for field in attrs.fields(type(value))]
        yield from _held_in(fields, seen, depth - 1)
